"""Segment Anything against the authors' network and Hugging Face's. Axes: B, P, N, M, C, H, W."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import resnet, sam_vit, tiny_vit
from segwright.layers import prompt_encoder
from segwright.layers.prompts import Prompts
from segwright.models import sam

GOLDEN = Path(__file__).parents[1] / "golden"
MANIFESTS = Path(__file__).parents[3] / "shared" / "parity" / "manifests"
HUB_EPS = 1e-6  # of Hugging Face's decoder
INTAKE = sam.WEIGHTS["sam_vit_b_sa1b"].intake


@pytest.fixture
def tiny(monkeypatch):
    """A network of the sizes of the golden arrays: patches of 8, windows of 3, images of 64."""

    def built(*, mlp_ratio: float, width: int = 32, num_heads: int = 4, in_channels: int = 3) -> sam.Sam:
        for name, value in {"PATCH": 8, "GRID": 8, "WINDOW": 3, "MLP_RATIO": mlp_ratio}.items():
            monkeypatch.setattr(sam_vit, name, value)
        for name, value in {"HEADS": num_heads, "SCORE_WIDTH": 24, "MASK_WIDTH": 8, "STRIDE": 8}.items():
            monkeypatch.setattr(prompt_encoder if name == "MASK_WIDTH" else sam, name, value)
        monkeypatch.setattr(sam.Sam, "divisors", (8, 8))
        monkeypatch.setattr(sam_vit, "STRIDES", (2, 4, 8, 16))
        encoder = sam_vit.Config(width=32, depth=3, num_heads=4, global_blocks=(2,))
        return sam.Config(encoder=encoder, width=width, mlp_width=48, in_channels=in_channels).build().eval()

    return built


def with_hub_norms(network: sam.Sam) -> sam.Sam:
    """The network with the norms of Hugging Face's decoder, of which the last is as the authors'."""
    for block in network.decoder.blocks:
        for module in block.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = HUB_EPS
    return network


class Golden:
    """Arrays that the authors' code or Hugging Face's made."""

    def __init__(self, name: str) -> None:
        self.arrays = load_file(GOLDEN / f"{name}.safetensors")
        self.meta = json.loads((GOLDEN / f"{name}.json").read_text())
        self.weights = {key[2:]: tensor for key, tensor in self.arrays.items() if key.startswith("w/")}

    def check(self, name: str, found: Tensor) -> None:
        """See that an output is as it was, all of it or a sample."""
        limits = self.meta["tolerance"][name]
        found = found.reshape(self.meta["outputs"][name]["shape"]).float()
        if f"out/{name}" in self.arrays:
            torch.testing.assert_close(found, self.arrays[f"out/{name}"], **limits, msg=lambda text: f"{name}: {text}")
        else:
            sample = found.flatten()[:: self.meta["outputs"][name]["stride"]]
            torch.testing.assert_close(sample, self.arrays[f"out/{name}@sample"], **limits, msg=lambda text: f"{name}: {text}")


def test_equals_the_authors_at_every_depth(tiny):
    golden = Golden("sam_a")
    network = tiny(mlp_ratio=2)
    network.load_state_dict(sam.rename(golden.weights))
    image = golden.arrays["in/image"]
    mean, std = (torch.tensor(value)[:, None, None] for value in (INTAKE.mean, INTAKE.std))
    image = F.pad((image - mean) / std, (0, 64 - image.shape[2], 0, 64 - image.shape[1]))[None]
    golden.check("preprocessed", image)
    points, labels, boxes, masks = (golden.arrays[f"in/{k}"] for k in ("point_coords", "point_labels", "boxes", "mask_inputs"))
    points, boxes = points[None] + 0.5, boxes[None] + 0.5  # the authors' are numbers of pixels
    kinds = {
        "points": Prompts(points, labels[None]),
        "boxes": Prompts(boxes_xyxy=boxes),
        "points_boxes": Prompts(points, labels[None], boxes),
        "points_mask": Prompts(points, labels[None], mask_logits=masks[None, :, 0]),
    }
    with torch.no_grad():
        embedding = network.encode(image)
        golden.check("image_embeddings", embedding)
        golden.check("dense_pe", network.prompts.grid(8, 8).T)
        golden.check("none.sparse", network.prompts.tokens(Prompts(), (1, 1), (64, 64)))
        golden.check("nomask.dense", network.prompts.dense(Prompts(), torch.float32)[:, None].expand(-1, 64))
        golden.check("points_mask.dense", network.prompts.dense(kinds["points_mask"], torch.float32).mT)
        for kind, prompts in kinds.items():
            golden.check(f"{kind}.sparse", network.prompts.tokens(prompts, (1, 2), (64, 64)))
            for multimask in (1, 0):
                answer = network.decode(embedding, prompts, multimask=bool(multimask))
                golden.check(f"{kind}.multi{multimask}.low_res", answer.mask_logits)
                golden.check(f"{kind}.multi{multimask}.iou", answer.scores)
        for number, kind in enumerate(("points", "boxes")):
            answer = network(image, kinds[kind])
            golden.check(f"forward{number}.low_res_logits", answer.mask_logits)
            golden.check(f"forward{number}.iou_predictions", answer.scores)
        whole = F.interpolate(network(image, kinds["points"]).mask_logits[0], (64, 64), mode="bilinear")
        golden.check("postprocessed", F.interpolate(whole[:, :, :48], (90, 120), mode="bilinear"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_hugging_face_at_every_depth(tiny, dtype):
    golden = Golden("sam_hf_a")
    network = with_hub_norms(tiny(mlp_ratio=1.5))
    network.load_state_dict(sam.rename(golden.weights))
    network.to(dtype)
    points, boxes, masks = (golden.arrays[f"in/input_{name}"].to(dtype) for name in ("points", "boxes", "masks"))
    labels = golden.arrays["in/input_labels"]
    points, boxes = points + 0.5, boxes + 0.5
    kinds = {
        "points": Prompts(points, labels),
        "boxes": Prompts(boxes_xyxy=boxes),
        "points_boxes": Prompts(points, labels, boxes),
        "points_mask": Prompts(points[:, :1], labels[:, :1], mask_logits=masks),
    }
    with torch.no_grad():
        embedding = network.encode(golden.arrays["in/pixel_values"].to(dtype))
        golden.check("image_embeddings", embedding)
        golden.check("image_pe", network.prompts.grid(8, 8).T)
        golden.check("nomask.dense", network.prompts.dense(Prompts(), dtype)[:, None].expand(-1, 64))
        golden.check("mask.dense", network.prompts.dense(kinds["points_mask"], dtype).mT)
        for kind, prompts in kinds.items():
            if kind != "points_mask":
                golden.check(f"{kind}.sparse", network.prompts.tokens(prompts, (1, 2), (64, 64)))
            for multimask in (1, 0):
                answer = network.decode(embedding, prompts, multimask=bool(multimask))
                golden.check(f"{kind}.multi{multimask}.pred_masks", answer.mask_logits)
                golden.check(f"{kind}.multi{multimask}.iou_scores", answer.scores)


def hugging_face(transformers, *, num_heads: int):
    """A random network of Hugging Face's, moved away from zeros and ones."""
    vision = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 64,
              "patch_size": 8, "window_size": 3, "global_attn_indexes": [2], "num_pos_feats": 16, "mlp_dim": 64}  # fmt: skip
    prompts = {"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 8}
    decoder = {"hidden_size": 32, "mlp_dim": 48, "num_hidden_layers": 2, "num_attention_heads": num_heads,
               "iou_head_hidden_dim": 24}  # fmt: skip
    config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    network = transformers.SamModel(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def odd_prompts() -> dict[str, tuple[Prompts, dict[str, Tensor]]]:
    """Prompts for two images as ours and as Hugging Face's."""
    generator = torch.Generator().manual_seed(3)
    points, boxes = (64 * torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 2, 2), (2, 3, 4)))
    masks = torch.randn(2, 1, 32, 32, generator=generator, dtype=torch.float64)
    background = torch.tensor([[[0, -1]] * 3] * 2)
    mixed = torch.tensor([[[1, 0], [0, 0], [1, -1]]] * 2)
    return {
        "nothing": (Prompts(), {}),
        "box": (Prompts(boxes_xyxy=boxes + 0.5), {"input_boxes": boxes}),
        "negative": (Prompts(points + 0.5, background), {"input_points": points, "input_labels": background}),
        "all": (
            Prompts(points[:, :1] + 0.5, mixed[:, :1], boxes[:, :1] + 0.5, masks),
            {"input_points": points[:, :1], "input_labels": mixed[:, :1], "input_boxes": boxes[:, :1], "input_masks": masks},
        ),
        "mask": (Prompts(mask_logits=masks), {"input_masks": masks}),
    }


@pytest.mark.parametrize("num_heads", [1, 4])  # of 16 channels and of 4: tokens are fewer than these, or more
def test_equals_and_learns_like_hugging_face_live(tiny, num_heads, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    torch.manual_seed(num_heads)
    theirs = hugging_face(transformers, num_heads=num_heads)
    theirs.save_pretrained(tmp_path)  # under the names of the hub
    ours = with_hub_norms(tiny(mlp_ratio=2, num_heads=num_heads))
    ours.load_state_dict(sam.rename(load_file(tmp_path / "model.safetensors")))
    ours, theirs = ours.double().train(), theirs.double().train()
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    losses: list[list[Tensor]] = [[], []]
    for kind, (prompts, parts) in odd_prompts().items():
        for multimask in (True, False):
            wanted = theirs(image, **parts, multimask_output=multimask)
            answer = ours.decode(ours.encode(image), prompts, multimask=multimask)
            torch.testing.assert_close(
                answer.mask_logits, wanted.pred_masks, rtol=1e-9, atol=1e-9, msg=lambda text, at=kind: f"{at}: {text}"
            )
            torch.testing.assert_close(answer.scores, wanted.iou_scores, rtol=1e-9, atol=1e-9)
            losses[0].append(answer.mask_logits.pow(3).mean() + answer.scores.pow(3).mean())
            losses[1].append(wanted.pred_masks.pow(3).mean() + wanted.iou_scores.pow(3).mean())
    for terms in losses:
        torch.stack(terms).sum().backward()
    with torch.no_grad():
        for parameter in theirs.parameters():  # gradients leave by the same door as weights
            parameter.copy_(torch.zeros(()) if parameter.grad is None else parameter.grad)
    theirs.save_pretrained(tmp_path)
    gradients = sam.rename(load_file(tmp_path / "model.safetensors"))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, gradients[name], rtol=1e-7, atol=1e-10, msg=lambda text, at=name: f"{at}: {text}"
        )


@pytest.mark.skipif(not MANIFESTS.exists(), reason="the lists of published tensors lie in ../shared/parity, which is absent")
@pytest.mark.parametrize(
    ("preset", "name"),
    [
        (f"sam_vit_{size[0]}", name)
        for size in ("base", "large", "huge")
        for name in (f"sam_vit_{size[0]}", f"hf_sam_vit_{size}")
    ],
)
def test_every_published_file_fits(preset, name):
    tensors = json.loads((MANIFESTS / f"{name}.json").read_text())["tensors"]
    with torch.device("meta"):
        renamed = sam.rename({key: torch.empty(shape) for key, shape in tensors.items()})
        network = sam.PRESETS[preset].build()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_equals_mobile_sam_at_every_depth_and_its_file_fits(golden):
    """The file of `golden` holds what its code says of few channels, and the names and shapes of all that is published."""
    file = golden("mobile_sam_a")
    encoder = tiny_vit.Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in file.config.items()})
    network = sam.Config(encoder=encoder).build().eval()
    weights = {key: tensor for key, tensor in file.weights.items() if not key.startswith(("head.", "norm_head."))}
    whole = sam.rename({f"image_encoder.{key}": tensor for key, tensor in weights.items()})
    assert {name.partition(".")[0] for name in whole} == {"encoder", "neck"}
    assert not network.load_state_dict(whole, strict=False).unexpected_keys
    with torch.no_grad():
        image = file.input("x")
        for number, level in enumerate(network.encoder(image)):
            file.check(f"stage{number}", level)
        file.check("embedding", network.neck(level))
    with torch.device("meta"):
        renamed = sam.rename({key: torch.empty(shape) for key, shape in file.meta["layout"].items()})
        published = sam.PRESETS["mobile_sam"].build().state_dict()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in published.items()}


def test_many_prompts_of_one_embedding_are_answered_as_each_alone(tiny):
    """Also those with more points than a head has channels, and with patches that they share or do not."""
    torch.manual_seed(0)
    network = tiny(mlp_ratio=2).double()
    embedding = torch.randn(2, 32, 8, 8, dtype=torch.float64)
    points, labels = 64 * torch.rand(2, 7, 9, 2, dtype=torch.float64), torch.randint(-1, 2, (2, 7, 9))
    masks = torch.randn(2, 7, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        for each in (Prompts(points, labels), Prompts(points, labels, mask_logits=masks)):
            answers = network.decode(embedding, each)
            for number in range(7):
                alone = Prompts(*[None if part is None else part[:, number, None] for part in each])
                one = network.decode(embedding, alone)
                torch.testing.assert_close(one.mask_logits[:, 0], answers.mask_logits[:, number], rtol=1e-9, atol=1e-9)


def test_other_sides_than_those_of_training_have_places_of_their_own(tiny):
    network = tiny(mlp_ratio=2)
    with torch.no_grad():
        answer = network(torch.randn(1, 3, 40, 96), Prompts(torch.tensor([[[[90.0, 30]]]]), torch.tensor([[[1]]])))
    assert answer.mask_logits.shape == (1, 1, 3, 20, 48) and answer.scores.shape == (1, 1, 3)


def test_any_encoder_can_take_the_transformers_place():
    encoder = resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16)
    network = sam.Config(in_channels=1, encoder=encoder, width=32, mlp_width=32).build()
    masks, scores = network.decode(network.encode(torch.randn(2, 1, 64, 32)), multimask=False)
    assert masks.shape == (2, 1, 1, 16, 8) and scores.shape == (2, 1, 1)


def test_rename_leaves_its_argument_alone_and_refuses_strangers():
    weights = Golden("sam_a").weights
    keys = list(weights)
    sam.rename(weights)
    assert list(weights) == keys
    for key in ("mask_decoder.transformer.layers.0.norm9.weight", "image_encoder.blocks.0.other.weight", "head.weight"):
        with pytest.raises(FormatError, match=f"hold '{key.removeprefix('image_encoder.')}', which"):
            sam.rename(weights | {key: torch.zeros(1)})
    del weights["prompt_encoder.point_embeddings.2.weight"]
    with pytest.raises(FormatError, match="lack part 4 of 5 of prompts.kinds; take the whole file"):
        sam.rename(weights)


def test_refuses_what_it_cannot_take(tiny):
    network = tiny(mlp_ratio=2)
    with pytest.raises(ShapeError, match=r"50 x 64, .* divisible by 8; pad them to 56 x 64"):
        network(torch.zeros(1, 3, 50, 64))
    embedding = torch.zeros(1, 32, 8, 8)
    with pytest.raises(ShapeError, match="earlier masks are 16 x 16, and this image has masks of 32 x 32"):
        network.decode(embedding, Prompts(mask_logits=torch.zeros(1, 1, 16, 16)))
    assert network.decode(embedding, Prompts(mask_logits=torch.zeros(1, 1, 32, 32))).scores.shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 40}, "width is 40; give a multiple of 16"),
        ({"mlp_width": 0}, "mlp_width is 0; it must be 1 or more"),
        ({"in_channels": 0}, "in_channels is 0; it must be 1 or more"),
    ],
)
def test_refuses_settings_that_cannot_be(settings, message):
    with pytest.raises(SettingError, match=message):
        sam.Config(**settings)


def test_refuses_an_encoder_without_a_map_of_stride_16():
    config = sam.Config(encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)), width=32)
    with pytest.raises(
        SettingError, match="strides 2, 4, 8, 16, 32, and the last must have 16; give an encoder of output_stride 16"
    ):
        config.build()
    replace(config, encoder=replace(config.encoder, output_stride=16)).build()
