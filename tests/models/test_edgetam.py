"""EdgeTAM against the authors' network and Hugging Face's, in every frame. Axes: B, P, M, N, E, C, H, W.

Of the authors' file, the point counts in pixels, to which their code adds 0.5.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segwright.core import Prompt
from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import resnet
from segwright.inference import frame_memory, video
from segwright.inference.prompting import open_prompter
from segwright.layers import prompt_encoder
from segwright.models import edgetam, sam2

SIDE = 128
SIZES = {"WIDTH": 128, "MLP_WIDTH": 32, "HEADS": 4, "SCORE_WIDTH": 24, "MEMORY_MLP": 96}  # Hugging Face's memory is always 64
WINDOWS, COUNT = (2, 2), 6  # of 4 x 4 patches
REPVIT = "repvit_m1.dist_in1k"


@pytest.fixture
def sizes(monkeypatch):
    """Networks of a small decoder and memory, whose encoder is the published one."""
    for name, value in SIZES.items():
        monkeypatch.setattr(sam2, name, value)
    monkeypatch.setattr(prompt_encoder, "MASK_WIDTH", 8)
    monkeypatch.setattr(edgetam, "GRID", WINDOWS)
    monkeypatch.setattr(edgetam, "COUNT", COUNT)


@pytest.fixture
def small(sizes):
    """A network of these sizes on a small encoder."""
    torch.manual_seed(0)
    return edgetam.Config(encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1))).build().eval()


def transformers_with_edgetam():
    """transformers, where it is installed and knows EdgeTAM."""
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    if not hasattr(transformers, "EdgeTamVideoModel"):
        pytest.skip(f"transformers {transformers.__version__} knows no EdgeTAM")
    return transformers


def hub_network(transformers, kind: str, **sizes):
    """A network of Hugging Face's for images or for videos, as published but for these sizes."""
    backbone = transformers.TimmWrapperConfig(
        architecture=REPVIT, model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    )
    vision = transformers.EdgeTamVisionConfig(backbone_config=backbone, **sizes.pop("vision", {}))
    if kind == "images":
        return transformers.EdgeTamModel(transformers.EdgeTamConfig(vision_config=vision, **sizes))
    return transformers.EdgeTamVideoModel(
        transformers.EdgeTamVideoConfig(
            vision_config=vision, enable_temporal_pos_encoding_for_object_pointers=False,
            enable_occlusion_spatial_embedding=False, **sizes,
        )
    )  # fmt: skip


OF_HUB = {
    "vision": {"fpn_hidden_size": 128, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]},
    "prompt_encoder_config": {"hidden_size": 128, "image_size": SIDE, "mask_input_channels": 8},
    "mask_decoder_config": {"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 4, "iou_head_hidden_dim": 24},
}
OF_VIDEO = {
    "image_size": SIDE, "memory_attention_hidden_size": 128, "memory_attention_mlp_hidden_size": 96,
    "memory_attention_rope_feat_sizes": [8, 8], "memory_attention_rope_k_sizes": list(WINDOWS),
    "perceiver_resampler_num_latents": COUNT, "perceiver_resampler_num_latents_2d": 4, "memory_encoder_hidden_size": 128,
    "mask_downsampler_embed_dim": 128, "memory_fuser_embed_dim": 128, "memory_fuser_intermediate_dim": 512,
}  # fmt: skip


def shaken(network: nn.Module) -> nn.Module:
    """The network with its parameters moved away from zeros and ones, and norms that know how large the values then are."""
    backbone = network.vision_encoder.backbone
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        directions = network.prompt_encoder.shared_embedding.positional_embedding
        network.shared_image_embedding.positional_embedding.copy_(directions)  # as in all published files
        network.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(20)  # objects are seen
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        backbone.train()(torch.randn(2, 3, SIDE, SIDE))
    return network.eval()


def loaded(theirs: nn.Module, folder: Path) -> tuple[sam2.Sam2, list[str]]:
    """Our network with the weights of theirs, from a file, and the names of what that file lacks."""
    theirs.save_pretrained(folder)
    ours = edgetam.Config().build().eval()
    left = ours.load_state_dict(edgetam.rename(load_file(folder / "model.safetensors")), strict=False)
    assert not left.unexpected_keys
    return ours, left.missing_keys


def test_images_equal_hugging_face_live(sizes, tmp_path, check_prompted):
    """The embedding, and all kinds of prompts, several of an image; its weights are those of a video's but for the memory."""
    transformers = transformers_with_edgetam()
    torch.manual_seed(1)
    theirs = shaken(hub_network(transformers, "images", **OF_HUB))
    ours, missing = loaded(theirs, tmp_path)
    assert all(name.startswith("memory.") for name in missing)
    ours, theirs = ours.double(), theirs.double()
    image = torch.randn(1, 3, SIDE, SIDE, dtype=torch.float64)
    with torch.no_grad():
        embedding = ours.encode(image)
        wanted = theirs.get_image_embeddings(image)[-1]
    torch.testing.assert_close(embedding[:, :128] + ours.no_memory[:, None, None], wanted, rtol=1e-6, atol=1e-6)
    check_prompted(ours, theirs, image)


class Shown:
    """A video of so many frames, of which nobody looks at the pixels: the network is given its own."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, frame: int) -> np.ndarray:
        raise AssertionError("frames are prepared already")


def session_of(network: sam2.Sam2, frames: Tensor) -> video.TrackSession:
    """A session on frames (T, 3, S, S) that are prepared already."""
    side = frames.shape[3]
    session = video.Tracker(network=network, side=side).open(Shown(len(frames)))
    session._shape, session._embedding = (side, side), lambda frame: network.encode(frames[frame][None])
    session.precision.takes_half = False
    return session


def test_every_frame_of_a_video_equals_the_authors(golden, monkeypatch):
    """The published network, on images of 512 x 512."""
    monkeypatch.setattr(frame_memory, "MEMORY_DTYPE", torch.float32)  # as in their network; their predictor rounds it
    file = golden("edgetam_a")
    network = edgetam.PRESETS["edgetam"].build().eval()
    network.load_state_dict(edgetam.rename(file.weights))
    session = session_of(network, file.input("frames"))
    with torch.no_grad():
        file.check("image", session._embedding(0)[:, : sam2.WIDTH])
    place = file.input("points")[0].numpy() + 0.5
    session.segment(Prompt(points_xy=place[None], is_foreground=np.array([True])))
    for frame, _ in session.track():
        known = session._objects[1].find(frame)
        file.check(f"frame{frame}.presence", known.presence)
        file.check(f"frame{frame}.mask", known.mask_logits)
        file.check(f"frame{frame}.pointer", known.pointer)
        file.check(f"frame{frame}.memory", known.memory.roll(edgetam.COUNT, 0))  # of all first, then of windows
    assert frame == 2


@pytest.mark.parametrize("backward", [False, True])
def test_every_frame_of_a_video_equals_hugging_face_live(sizes, tmp_path, monkeypatch, backward):
    """Two objects, a box and two points, and more frames than the memory has room for: masks, pointers and what is kept."""
    transformers = transformers_with_edgetam()
    monkeypatch.setattr(frame_memory, "MEMORY_DTYPE", torch.float32)  # as theirs
    torch.manual_seed(2)
    theirs = shaken(hub_network(transformers, "videos", **OF_HUB, **OF_VIDEO))
    ours, missing = loaded(theirs, tmp_path)
    assert not missing
    frames, first = torch.randn(9, 3, SIDE, SIDE), 8 if backward else 0
    session = session_of(ours, frames)
    clicks = Prompt(
        points_xy=np.array([[30.5, 40.5], [90.5, 20.5]], np.float32), is_foreground=np.array([True, False]), frame=first
    )
    session.segment(clicks, Prompt(box_xyxy=np.array([20, 30, 80, 100], np.float32), object_id=2, frame=first))
    their_session = transformers.models.edgetam_video.modeling_edgetam_video.EdgeTamVideoInferenceSession(
        video=frames, video_height=SIDE, video_width=SIDE, dtype=torch.float32
    )
    asked = {1: ([[[[30.0, 40], [90, 20]]]], [[[1, 0]]]), 2: ([[[[20.0, 30], [79, 99]]]], [[[2, 3]]])}
    for number, (points, labels) in asked.items():
        inputs = {"point_coords": torch.tensor(points), "point_labels": torch.tensor(labels, dtype=torch.int32)}
        their_session.add_point_inputs(their_session.obj_id_to_idx(number), first, inputs)
    their_session.obj_with_new_inputs = [1, 2]
    with torch.no_grad():
        theirs(inference_session=their_session, frame_idx=first)
        said = theirs.propagate_in_video_iterator(their_session, start_frame_idx=first, reverse=backward)
        wanted = {each.frame_idx: each.pred_masks[:, 0] for each in said}
    tracked = [frame for frame, _ in session.track(backward=backward)]
    assert sorted(tracked) == list(range(9))
    for frame in tracked:
        for index, number in enumerate((1, 2)):
            known = session._objects[number].find(frame)
            kind = "cond_frame_outputs" if frame == first else "non_cond_frame_outputs"
            other = their_session.output_dict_per_obj[index][kind][frame]
            kept = other["maskmem_features"][0].roll(-COUNT, 0)  # of the whole first, then of windows
            assert known.presence > 0
            for name, found, expected in (
                ("mask", known.mask_logits, wanted[frame][index]),
                ("pointer", known.pointer, other["object_pointer"].flatten()),
                ("memory", known.memory, kept),
            ):
                at = f"frame {frame}, object {number}, {name}"
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=lambda text, at=at: f"{at}: {text}")


def shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def test_the_authors_file_fits(golden):
    """By the names and shapes of the network that the authors' configuration builds; their file has as many parameters."""
    facts = golden("edgetam_a").meta
    with torch.device("meta"):
        ours = edgetam.PRESETS["edgetam"].build()
        theirs = {name: torch.empty(shape) for name, shape in facts["weight_shapes"].items()}
    assert shapes(edgetam.rename(theirs)) == shapes(ours.state_dict())
    unread = theirs["no_mem_pos_enc"].numel()
    assert sum(parameter.numel() for parameter in ours.parameters()) == facts["parameters"] - unread == 13_895_794 - unread


@pytest.mark.parametrize("kind", ["images", "videos"])
def test_the_files_of_the_hub_fit(kind):
    transformers = transformers_with_edgetam()
    with torch.device("meta"):
        whole = shapes(edgetam.PRESETS["edgetam"].build().state_dict())
        found = shapes(edgetam.rename(hub_network(transformers, kind).state_dict()))
    assert found.items() <= whole.items()
    assert all(name.startswith("memory.") for name in whole.keys() - found.keys())
    assert kind == "images" or found == whole


def test_keys_and_values_are_taken_apart(small):
    joint = torch.randn(128, 64)
    found = edgetam.rename({"spatial_perceiver.layers.1.self_attn.to_kv.weight": joint})
    assert torch.equal(found["memory.perceiver.layers.1.attention.key.weight"], joint[:64])
    assert torch.equal(found["memory.perceiver.layers.1.attention.value.weight"], joint[64:])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("image_encoder.trunk.blocks.0.norm1.weight", "the encoder of EdgeTAM is one of timm, whose names start with"),
        ("spatial_perceiver.layers.0.attn.to_x.weight", "which the perceiver of EdgeTAM does not"),
        ("spatial_perceiver.latents_3d", "which the perceiver of EdgeTAM does not"),
        ("memory_attention.layers.0.norm9.weight", "which SAM 2 does not"),
    ],
)
def test_rename_refuses_strangers(key, message):
    with pytest.raises(FormatError, match=f"hold '{key}'.*{message}"):
        edgetam.rename({key: torch.zeros(1)})


def test_gradients_reach_all_that_a_video_needs(small):
    embedding = small.encode(torch.randn(1, 3, SIDE, SIDE))
    masks = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    masks[:, :64] = True
    first = small.adopt(embedding, masks)
    kept = small.remember(embedding, first, is_asked=True)
    assert kept.shape == (1, 4 + COUNT, sam2.MEMORY_WIDTH)
    memory = sam2.Memory(torch.stack([kept] * 2, dim=1), (0, 1), torch.stack([first.pointers] * 2, dim=1), (1.0, 0.5))
    second = small.answer(embedding, memory=memory)
    loss = second.mask_logits.mean() + second.presence.sum() + second.pointers.pow(3).sum()
    (loss + small.memory.no_pointer.sum() + small.memory.times.pow(2).sum()).backward()
    assert not [name for name, parameter in small.memory.named_parameters() if parameter.grad is None]


def test_it_opens_by_its_name_for_images_and_for_videos(small, tmp_path, monkeypatch):
    monkeypatch.setitem(edgetam.PRESETS, "edgetam", small.config)
    torch.save({"model": small.state_dict()}, tmp_path / "small.pt")
    tracker = video.open_tracker("edgetam", weights=str(tmp_path / "small.pt"), side=SIDE)
    mask = np.zeros((48, 64), bool)
    mask[16:32, 16:48] = True
    frames = list(np.random.default_rng(0).integers(0, 255, (3, 3, 48, 64), np.uint8))
    tracked = dict(tracker.track(frames, [Prompt(mask=mask)]))
    assert list(tracked) == [0, 1, 2] and (tracked[0].mask(0) == mask).mean() > 0.99
    prompter = open_prompter("edgetam", weights=str(tmp_path / "small.pt"))
    assert prompter.network.fills_squares and prompter.side == 1024


def test_refuses_what_it_cannot_take(sizes, monkeypatch):
    monkeypatch.setattr(edgetam, "GRID", (16, 16))
    network = edgetam.Config(encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1))).build().eval()
    assert network(torch.zeros(1, 3, 64, 96)).mask_logits.shape == (1, 1, 3, 16, 24)  # an image that is not remembered
    with pytest.raises(SettingError, match="side is 128; this network takes sides that are multiples of 256, such as 1024"):
        video.Tracker(network=network, side=128)
    assert video.Tracker(network=network, side=1024).side == 1024
    embedding = network.encode(torch.zeros(1, 3, SIDE, SIDE))
    with pytest.raises(ShapeError, match="the map is 8 x 8, and is condensed into 16 x 16 windows"):
        network.remember(embedding, network.answer(embedding), is_asked=False)
    with pytest.raises(SettingError, match="in_channels is 0; it must be 1 or more"):
        edgetam.Config(in_channels=0)


def test_published_weights_say_what_they_are_of():
    assert [each.preset for each in edgetam.WEIGHTS.values()] == ["edgetam"] * 2
    assert edgetam.WEIGHTS["edgetam_sav"].file == "edgetam.pt"
