"""MaskFormer against the golden arrays, transformers live, and the authors' layout. Axes: B, C, K, Q, E, M, L, H, W, h, w."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import resnet, swin
from segwright.layers.matching import match_queries
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.query_masks import QueryMasks
from segwright.layers.sine_positions import sine_positions
from segwright.models import maskformer
from segwright.models._maskformer_loss import maskformer_losses, pair_costs

SWIN = swin.Config(width=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), window=4, drop_path=0.0)  # of the golden files
SMALL = maskformer.Config(
    num_classes=5,
    encoder=SWIN,
    width=32,
    mask_width=16,
    mlp_width=48,
    num_heads=4,
    decoder_layers=2,
    num_queries=10,
    dropout=0.0,
)
BASIC = resnet.Config(block="basic", depths=(1, 1, 1, 1))


def golden_truth(file) -> list[ObjectTruth]:
    """The segments of the two images of the golden file, each in a plane of its own."""
    truth = []
    for number in (0, 1):
        masks, class_ids = (file.input(f"{name}_labels.{number}") for name in ("mask", "class"))
        planes = masks.int() * torch.arange(1, len(masks) + 1, dtype=torch.int32)[:, None, None]
        truth.append(ObjectTruth(torch.zeros(len(masks), 4), class_ids, planes))
    return truth


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_transformers_golden_at_every_depth(golden, dtype):
    reference = golden("maskformer_hf_a")
    network = SMALL.build()
    network.load_state_dict(maskformer.rename(reference.weights))
    network.to(dtype).eval()
    image = reference.input("pixel_values").to(dtype)
    with torch.no_grad():
        pixels, deepest = network.pixel_decoder(network.encoder(image))
        reference.check("pixel_decoder_last_hidden_state", pixels)
        raw, queries = network.decoder.raw(deepest), network.decoder(deepest)
        reference.check("transformer_decoder_last_hidden_state", queries[-1])
        layers = {"aux0.": torch.zeros_like(raw[0]), "aux1.": raw[0], "": queries[-1]}  # transformers norms the last alone
        for prefix, each in layers.items():
            class_logits, embeddings = network.answers(each)
            reference.check(f"{prefix}class_queries_logits", class_logits)
            masks = torch.einsum("bqm,bmhw->bqhw", embeddings, pixels)
            reference.check(f"{prefix}masks_queries_logits", masks)
        answer = network(image)
        reference.check("class_queries_logits", answer.class_logits)
        reference.check("masks_queries_logits", answer.mask_logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_transformers_golden_in_matching_and_losses(golden, dtype):
    """Its classes have weights that were drawn like all others; ours in the class term are held live below."""
    reference = golden("maskformer_hf_a")
    network = SMALL.build()
    network.load_state_dict(maskformer.rename(reference.weights))
    network.to(dtype).eval()
    truth, total = golden_truth(reference), 0
    weights = reference.weights["criterion.empty_weight"].to(dtype)
    with torch.no_grad():
        pixels, deepest = network.pixel_decoder(network.encoder(reference.input("pixel_values").to(dtype)))
        raw, queries = network.decoder.raw(deepest), network.decoder(deepest)
        for suffix, each in (("_0", torch.zeros_like(raw[0])), ("_1", raw[0]), ("", queries[-1])):
            class_logits, embeddings = network.answers(each[None])
            terms = maskformer_losses(class_logits, embeddings, pixels, truth, (64, 64))
            costs = pair_costs(class_logits, embeddings, pixels, truth, [one.planes for one in truth])
            images, paired, segments = (part[0] for part in match_queries(costs))
            wanted = torch.full((2, 10), 5)
            wanted[images, paired] = torch.stack([truth[image].class_ids[n] for image, n in zip(images, segments, strict=True)])
            classes = F.cross_entropy(class_logits[0].flatten(0, 1), wanted.flatten(), weights)
            reference.check(f"loss_dict.loss_cross_entropy{suffix}", classes[None])
            reference.check(f"loss_dict.loss_mask{suffix}", terms["masks"][None])
            reference.check(f"loss_dict.loss_dice{suffix}", terms["dice"][None])
            total += classes + terms["masks"] + terms["dice"]
    reference.check("loss", total[None])
    for image in (0, 1):
        assert paired[images == image].tolist() == reference.arrays[f"out/match.{image}.query"].tolist()
        assert segments[images == image].tolist() == reference.arrays[f"out/match.{image}.target"].tolist()


def hugging_face(encoder: str) -> nn.Module:
    """A small network of transformers, in float64, that leaves nothing out."""
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    maps = ["stage1", "stage2", "stage3", "stage4"]
    if encoder == "swin":
        backbone = transformers.SwinConfig(
            embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4, drop_path_rate=0.0, out_features=maps
        )
    else:
        backbone = transformers.ResNetConfig(
            hidden_sizes=[64, 128, 256, 512], depths=[1, 1, 1, 1], layer_type="basic", out_features=maps
        )
    decoder = transformers.DetrConfig(
        d_model=32, decoder_layers=2, encoder_layers=2, decoder_attention_heads=4, encoder_attention_heads=4,
        decoder_ffn_dim=48, encoder_ffn_dim=48, num_queries=10, dropout=0.0,
    )  # fmt: skip
    config = transformers.MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=16, num_labels=5
    )
    network = transformers.MaskFormerForInstanceSegmentation(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # away from a new network's zeros and ones
    return network.double()


def from_hub(theirs: nn.Module, folder) -> dict[str, Tensor]:
    """What a network of theirs holds by the names of the hub, under ours."""
    theirs.save_pretrained(folder)
    return maskformer.rename(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("encoder", ["swin", "resnet"])
def test_equals_transformers_live_in_inference_loss_and_gradients(encoder, tmp_path):
    torch.manual_seed(0)
    theirs = hugging_face(encoder)
    ours = replace(SMALL, encoder=SWIN if encoder == "swin" else BASIC).build().double()
    ours.load_state_dict(from_hub(theirs, tmp_path / "weights"))
    image = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        answer, wanted = ours.eval()(image), theirs.eval()(image)
    torch.testing.assert_close(answer.class_logits, wanted.class_queries_logits, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(answer.mask_logits, wanted.masks_queries_logits, rtol=1e-8, atol=1e-8)

    planes = torch.randint(0, 4, (2, 1, 8, 12), dtype=torch.int32).repeat_interleave(8, 2).repeat_interleave(8, 3)
    truth = [ObjectTruth(torch.zeros(3, 4), torch.randint(0, 5, (3,)), each) for each in planes]
    masks = [torch.stack([(each.planes[0] == number).double() for number in (1, 2, 3)]) for each in truth]
    theirs.train()
    loss = theirs(image, mask_labels=masks, class_labels=[each.class_ids for each in truth]).loss
    loss.backward()
    pixels, deepest = ours.train().pixel_decoder(ours.encoder(image)[-4:])
    last = ours.decoder(deepest)[-1]  # transformers learns from the last layer alone, unless it is told otherwise
    terms = maskformer_losses(*ours.answers(last[None]), pixels, truth, (64, 96))
    sum(terms.values()).backward()
    assert sum(terms.values()).item() == pytest.approx(loss.item(), rel=1e-9)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    gradients = from_hub(theirs, tmp_path / "gradients")
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-9, msg=name)


def test_every_layer_learns_through_the_norm_behind_the_decoder():
    """The loss of a step is that of what each layer would answer, were it the last."""
    torch.manual_seed(1)
    config = replace(SMALL, encoder=BASIC, decoder_layers=3)
    network = config.build().double().eval()
    nn.init.uniform_(network.decoder.norm.weight, 0.5, 1.5)  # layers end with a norm, and a fresh one behind it changes nothing
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    planes = torch.randint(0, 3, (1, 64, 64), dtype=torch.int32)
    truth = [ObjectTruth(torch.zeros(2, 4), torch.tensor([1, 4]), planes)]
    wanted = {"classes": 0.0, "masks": 0.0, "dice": 0.0}
    with torch.no_grad():
        terms = network(image, truth)
        pixels, _ = network.pixel_decoder(network.encoder(image)[-4:])
        layers = network.decoder.layers
        for count in (1, 2, 3):
            network.decoder.layers = layers[:count]
            answer = network(image)
            masks = answer.mask_logits.flatten(2)  # as embeddings of pixels that are one by one
            identity = torch.eye(masks.shape[2], dtype=torch.float64).view(1, -1, 16, 16)
            for name, term in maskformer_losses(answer.class_logits[None], masks[None], identity, truth, (64, 64)).items():
                wanted[name] += term.item()
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(wanted)


@pytest.mark.parametrize(("data", "classes"), [("coco", 133), ("ade", 150)])
def test_published_files_of_transformers_fit(manifest, data, classes):
    with torch.device("meta"):
        network = replace(maskformer.PRESETS["maskformer_swin_tiny"], num_classes=classes).build()
    renamed = maskformer.rename(manifest(f"hf_maskformer_swin_tiny_{data}"))
    assert {name: tensor.shape for name, tensor in renamed.items()} == {
        name: tensor.shape for name, tensor in network.state_dict().items()
    }


AUTHORS = (  # what our modules are called in the authors' files, the first that fits
    (r"pixel_decoder\.lateral\.(\d)\.0", lambda found: f"pixel_decoder.adapter_{int(found[1]) + 1}"),
    (r"pixel_decoder\.lateral\.(\d)\.1", lambda found: f"pixel_decoder.adapter_{int(found[1]) + 1}.norm"),
    (r"pixel_decoder\.output\.(\d)\.0", lambda found: f"pixel_decoder.layer_{int(found[1]) + 1}"),
    (r"pixel_decoder\.output\.(\d)\.1", lambda found: f"pixel_decoder.layer_{int(found[1]) + 1}.norm"),
    (r"pixel_decoder\.pixels", "pixel_decoder.mask_features"),
    (r"pixel_decoder\.project", "pixel_decoder.input_proj"),
    (r"pixel_decoder\.layers\.(\d)\.mlp\.norm", r"pixel_decoder.transformer.encoder.layers.\1.norm2"),
    (r"pixel_decoder\.layers\.(\d)\.(.+)", r"pixel_decoder.transformer.encoder.layers.\1.\2"),
    (r"decoder\.layers\.(\d)\.(.+)", r"predictor.transformer.decoder.layers.\1.\2"),
    (r"decoder\.norm", "predictor.transformer.decoder.norm"),
    (r"decoder\.project", "predictor.input_proj"),
    (r"decoder", "predictor.query_embed"),
    (r"classify", "predictor.class_embed"),
    (r"embed\.(\d)", r"predictor.mask_embed.layers.\1"),
)
AUTHORS_PARTS = {
    "cross_attention.output": "multihead_attn.out_proj", "cross_attention": "multihead_attn", "cross_norm": "norm2",
    "attention.output": "self_attn.out_proj", "attention_norm": "norm1", "mlp.widen": "linear1", "mlp.narrow": "linear2",
    "mlp.norm": "norm3",
}  # fmt: skip


def authors_file(network: nn.Module, is_oldest: bool) -> dict[str, Tensor]:
    """The weights of a network on a ResNet by the names of the authors' files, of which the oldest name no pixel decoder."""
    state = network.state_dict()
    file = {"criterion.empty_weight": torch.ones(6), "pixel_mean": torch.zeros(3, 1, 1)}
    for name, tensor in state.items():
        module, _, kind = name.rpartition(".")
        if name.startswith("encoder."):
            key = name.removeprefix("encoder.").replace("conv1.", "stem.conv1.", 1 if name.startswith("encoder.conv1") else 0)
            key = re.sub(r"^bn1\.", "stem.conv1.norm.", key)
            key = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", key)
            key = (
                re.sub(r"\.bn(\d)", r".conv\1.norm", key)
                .replace("downsample.0", "shortcut")
                .replace("downsample.1", "shortcut.norm")
            )
            if kind != "num_batches_tracked":
                file[f"backbone.{key}"] = tensor
            continue
        if module.endswith(".query_key_value"):
            module, kind = module.removesuffix(".query_key_value"), f"in_proj_{kind}"
        pattern, theirs = next(pair for pair in AUTHORS if re.fullmatch(pair[0], module))
        key = re.sub(pattern, theirs, module)
        for part, there in {**AUTHORS_PARTS, "attention": "self_attn"}.items():
            key = key.removesuffix(f".{part}") + f".{there}" if key.endswith(f".{part}") else key
        if is_oldest:
            key = key.removeprefix("pixel_decoder.")
        file[f"sem_seg_head.{key}.{'weight' if kind == 'positions' else kind}"] = tensor
    return file


@pytest.mark.parametrize(("encoder_layers", "is_oldest"), [(0, True), (2, False)])
def test_the_authors_files_find_their_places(encoder_layers, is_oldest):
    network = replace(SMALL, encoder=BASIC, encoder_layers=encoder_layers).build()
    file = authors_file(network, is_oldest)
    assert "sem_seg_head.predictor.transformer.decoder.layers.1.multihead_attn.in_proj_weight" in file
    assert f"sem_seg_head.{'' if is_oldest else 'pixel_decoder.'}layer_4.norm.weight" in file
    renamed = maskformer.rename(file)
    assert renamed.keys() == network.state_dict().keys()
    assert all(torch.equal(renamed[name], tensor) for name, tensor in network.state_dict().items())


def test_pixels_of_the_deepest_map_heed_each_other_where_the_encoder_has_layers():
    torch.manual_seed(2)
    network = replace(SMALL, encoder_layers=1).build().double().eval()
    decoder = network.pixel_decoder
    deepest = torch.randn(1, 64, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        tokens = decoder.project(deepest).flatten(2).mT
        wanted = decoder.layers[0](tokens, sine_positions((2, 3), 32, tokens)).mT.unflatten(2, (2, 3))
        got = decoder.attended(decoder.project(deepest))
        torch.testing.assert_close(got, wanted)
        finer = [torch.zeros(1, width, 2 * step, 3 * step).double() for width, step in ((8, 8), (16, 4), (32, 2))]
        _, seen = decoder([*finer, deepest])
        torch.testing.assert_close(seen, wanted)  # what the queries look at, without another projection
    assert network.decoder.project is None


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        *[(f"maskformer_swin_{size}", count) for size, count in (("tiny", 42), ("small", 63), ("base", 102), ("large", 212))],
        *[(f"maskformer_{size}", count) for size, count in (("r50", 41), ("r101", 60), ("r101c", 60))],
    ],
)
def test_each_published_size_has_the_published_number_of_parameters(name, millions):
    with torch.device("meta"):
        network = maskformer.PRESETS[name].build()
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(millions * 1e6, rel=0.015)


def test_what_is_known_of_weights_fits_the_presets():
    assert len(maskformer.WEIGHTS) == 18
    for weights in maskformer.WEIGHTS.values():
        assert not weights.is_permissive and weights.preset in maskformer.PRESETS
    coco = maskformer.WEIGHTS["maskformer_r50_coco_panoptic"]
    assert coco.classes == 133 and coco.score == "46.5 PQ on COCO val2017"
    assert coco.file == "model_final_6f60dc.pkl"


@pytest.mark.parametrize("encoder_norm", ["batch", "group", "frozen"])
def test_another_encoder_takes_the_place_and_every_parameter_learns(encoder_norm):
    torch.manual_seed(3)
    config = replace(
        SMALL, in_channels=4, encoder=replace(BASIC, output_stride=16), encoder_norm=encoder_norm, encoder_layers=1
    )
    network = config.build().train()
    assert network.divisors == (16, 16)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items() if "running" in name}
    planes = torch.zeros(1, 64, 64, dtype=torch.int32)
    planes[:, 8:40, 8:40] = 1
    terms = network(torch.randn(2, 4, 64, 64), [ObjectTruth(torch.zeros(1, 4), torch.tensor([3]), planes)] * 2)
    assert terms.keys() == {"classes", "masks", "dice"} and all(term.shape == () for term in terms.values())
    sum(terms.values()).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    stays = all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())
    assert stays == (encoder_norm != "batch") and bool(before) == (encoder_norm != "group")
    answer = network.eval()(torch.randn(1, 4, 64, 80))
    assert isinstance(answer, QueryMasks)
    assert answer.class_logits.shape == (1, 10, 6) and answer.mask_logits.shape == (1, 10, 16, 20)


def test_it_learns_the_segments_of_an_image():
    torch.manual_seed(4)
    network = SMALL.build().train()
    image = torch.zeros(1, 3, 64, 64)
    image[:, 0, 8:40, 8:40], image[:, 1, 44:60] = 2.0, 2.0
    planes = torch.zeros(1, 64, 64, dtype=torch.int32)
    planes[:, 8:40, 8:40], planes[:, 44:60] = 1, 2
    truth = [ObjectTruth(torch.zeros(2, 4), torch.tensor([4, 1]), planes)]
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(25):
        optimiser.zero_grad()
        sum(network(image, truth).values()).backward()
        optimiser.step()
    with torch.no_grad():
        answer = network.eval()(image)
    probs = answer.class_logits[0].softmax(1)
    for number, class_id in ((1, 4), (2, 1)):
        query = probs[:, class_id].argmax()
        mask = F.interpolate(answer.mask_logits[:, query, None], size=(64, 64), mode="bilinear")[0, 0] > 0
        wanted = planes[0] == number
        assert probs[query, class_id] > 0.8
        assert (mask & wanted).sum() / (mask | wanted).sum() > 0.9


def test_refuses_settings_that_cannot_be_meant_and_the_remedies_work():
    with pytest.raises(SettingError, match="num_queries is 0; it must be 1 or more"):
        replace(SMALL, num_queries=0)
    with pytest.raises(SettingError, match="encoder_layers is -1; it must be 0 or more"):
        replace(SMALL, encoder_layers=-1)
    with pytest.raises(SettingError, match="width of 30 does not divide among 4 heads, .* such as width=256 and num_heads=8"):
        replace(SMALL, width=30)
    with pytest.raises(SettingError, match="width of 6 does not divide"):
        replace(SMALL, width=6, num_heads=3)
    replace(SMALL, width=256, num_heads=8)


def test_the_small_one_is_made_for_minutes_on_a_cpu():
    config = maskformer.PRESETS["maskformer_small"]
    assert config.num_queries == 50 and config.decoder_layers == 3 and config.encoder_norm == "group"
    with torch.device("meta"):
        network = config.build()
    assert sum(parameter.numel() for parameter in network.parameters()) < 14e6


def test_rename_names_strangers():
    for key in (
        "sem_seg_head.pixel_decoder.adapter_4.weight",
        "sem_seg_head.predictor.transformer_cross_attention_layers.0.norm.weight",  # of Mask2Former
        "sem_seg_head.predictor.transformer.decoder.layers.0.self_attn.q_norm.weight",
        "model.transformer_module.encoder.layers.0.fc1.weight",
        "classifier.weight",
    ):
        with pytest.raises(
            FormatError, match=f"hold '{key}', which no MaskFormer has; .* check that the file holds a MaskForm"
        ):
            maskformer.rename({key: torch.zeros(1)})
