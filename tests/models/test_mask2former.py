"""Mask2Former against transformers' and the authors'. Axes: B, C, K, Q, E, H, W."""

import sys
import zlib
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import resnet, swin, timm
from segwright.layers.deformable_attention import DeformableAttention
from segwright.layers.matching import match_queries
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.query_masks import QueryMasks
from segwright.layers.set_criterion import QueryProducts, point_costs, set_losses
from segwright.models import mask2former

TINY_SWIN = swin.Config(width=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), window=4, drop_path=0.0)
TINY = mask2former.Config(
    num_classes=5,
    encoder=TINY_SWIN,
    width=32,
    num_heads=4,
    encoder_layers=2,
    encoder_mlp_width=48,
    decoder_layers=3,
    mlp_width=48,
    num_queries=8,
    points=64,
)
MEAN, STD = torch.tensor([123.675, 116.28, 103.53])[:, None, None], torch.tensor([58.395, 57.12, 57.375])[:, None, None]


def check_depths(file, network, image, names):
    """See that maps, features and what queries answer after each layer equal those of a golden file, by its names."""
    dtype = image.dtype
    network.load_state_dict(mask2former.rename(file.weights))
    network.eval().to(dtype)
    with torch.no_grad():
        maps = network.encoder(image)
        for number, level in enumerate(maps):
            file.check(names["encoder"].format(number + names["first"]), level)
        pixels = network.pixels(maps)
        file.check("pixel_decoder.mask_features", pixels.features)
        for number, (level, side) in enumerate(zip(pixels.levels, pixels.sides, strict=True)):
            file.check(f"pixel_decoder.multi_scale{number}", level.mT.unflatten(2, side))
        known = network.answers(pixels)
        for number, queries in enumerate(known):
            aux = "" if number == len(known) - 1 else f"aux{number}."
            file.check(aux + names["classes"], network.classify(queries))
            file.check(aux + names["masks"], mask2former.products(network.mask(queries), pixels.features))
        answer = network(image)
    file.check(names["classes"], answer.class_logits)
    file.check(names["masks"], answer.mask_logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_transformers_at_every_depth(golden, dtype):
    file = golden("mask2former_hf_a")
    names = {"encoder": "backbone.stage{}", "first": 1, "classes": "class_queries_logits", "masks": "masks_queries_logits"}
    check_depths(file, TINY.build(), file.input("pixel_values").to(dtype), names)


def test_equals_the_authors_at_every_depth(golden):
    file = golden("m2f_official_swin_a")
    image = (file.input("image0").float() - MEAN) / STD
    file.check("batch", image[None])
    names = {"encoder": "backbone.res{}", "first": 2, "classes": "pred_logits", "masks": "pred_masks"}
    check_depths(file, replace(TINY, encoder_mlp_width=1024).build(), image[None], names)


def segments(class_ids, masks):
    """Segments with masks (N, H, W), each in a plane of its own."""
    numbers = torch.arange(1, len(masks) + 1)[:, None, None]
    planes = (masks.bool() * numbers).int() if len(masks) else torch.zeros(1, *masks.shape[1:], dtype=torch.int32)
    return ObjectTruth(torch.zeros(len(masks), 4), class_ids, planes)


def test_the_loss_equals_transformers(golden, monkeypatch):
    """Layer by layer on the recorded points: the last first, as theirs draws them.

    The rule that made the weights made those of classes in the loss as well.
    """
    file = golden("mask2former_loss_a")
    weights = file.weights["criterion.empty_weight"]
    cross_entropy = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda logits, wanted, _: cross_entropy(logits, wanted, weights))
    network = replace(TINY, encoder_layers=1, decoder_layers=2).build()
    network.load_state_dict(mask2former.rename(file.weights))
    truth = [segments(file.input(f"class_labels.{number}"), file.input(f"mask_labels.{number}")) for number in (0, 1)]
    recorded = iter(recorded_points(file))
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: next(recorded).reshape(shape))
    total = torch.zeros(())
    with torch.no_grad():
        pixels = network.eval().pixels(network.encoder(file.input("pixel_values")))
        *earlier, last = network.answers(pixels)
        for suffix, queries in (("", last), ("_0", earlier[0]), ("_1", earlier[1])):
            products = QueryProducts(network.classify(queries)[None], network.mask(queries)[None], pixels.features)
            terms = set_losses(products, truth, (64, 64), points=64, generator=None)
            for ours, theirs in (("classes", "cross_entropy"), ("masks", "mask"), ("dice", "dice")):
                file.check(f"loss_dict.loss_{theirs}{suffix}", terms[ours].reshape(1))
            total += sum(terms.values())
    file.check("loss", total.reshape(1))


def test_the_pairs_equal_transformers(golden, monkeypatch):
    file = golden("mask2former_loss_a")
    truth = [segments(file.input(f"class_labels.{number}"), file.input(f"mask_labels.{number}")) for number in (0, 1)]
    recorded = iter(recorded_points(file))
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: next(recorded).reshape(shape))
    answer = QueryMasks(file.arrays["out/class_queries_logits"], file.arrays["out/masks_queries_logits"])
    matches = match_queries(point_costs([answer], truth, (64, 64), points=64, generator=None))
    queries, found = (each[0].split([2, 1]) for each in (matches.queries, matches.segments))
    for number in (0, 1):
        file.check(f"match.{number}.query", queries[number])
        file.check(f"match.{number}.target", found[number])


def recorded_points(file):
    """The points of a layer's pairs, of both images at once, then those that a loss chooses from, then the others."""
    for first in range(0, 12, 4):
        shapes = file.arrays["out/rand_shapes"][first : first + 4].tolist()
        drawn = [uniform(f"rand{first + number}", shape, file.meta["recipe"]["seed"]) for number, shape in enumerate(shapes)]
        yield from (torch.cat(drawn[:2]), *drawn[2:])


def uniform(name, shape, seed):
    """Numbers of 0 to 1 that depend on a name alone, as the golden files' rule has them."""
    state = np.random.RandomState(zlib.crc32(f"{seed}:in:{name}".encode()))
    return torch.from_numpy(state.random_sample(tuple(shape)).astype(np.float32))


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="the live comparison needs transformers")


def twins(transformers, folder, layers=3, queries=8, points=40):
    """transformers' Mask2Former on a tiny Swin Transformer, and ours with its weights, in float64."""
    torch.manual_seed(0)
    config = transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(
            image_size=64,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 2, 2, 4],
            window_size=4,
            drop_path_rate=0.0,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=48,
        encoder_layers=2,
        decoder_layers=layers + 1,
        num_attention_heads=4,
        dim_feedforward=48,
        num_queries=queries,
        num_labels=5,
        train_num_points=points,
        use_auxiliary_loss=True,
    )
    theirs = transformers.Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        for parameter in theirs.parameters():  # so that no bias is zero and no two places are the same
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)  # which gives weights the names that files have
    ours = replace(TINY, decoder_layers=layers, num_queries=queries, points=points).build()
    ours.load_state_dict(mask2former.rename(load_file(folder / "model.safetensors")))
    return theirs.double(), ours.double()


@pytest.mark.parametrize("sides", [(64, 96), (32, 32)])
def test_answers_as_transformers_does(transformers, tmp_path, sides):
    theirs, ours = twins(transformers, tmp_path)
    image = torch.randn(2, 3, *sides, dtype=torch.float64)
    with torch.no_grad():
        wanted, found = theirs.eval()(image), ours.eval()(image)
    torch.testing.assert_close(found.class_logits, wanted.class_queries_logits, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.mask_logits, wanted.masks_queries_logits, rtol=1e-6, atol=1e-7)


def test_a_training_step_equals_transformers(transformers, tmp_path, monkeypatch):
    """Every draw of a shape is the same, so that all layers have the same points: then losses and gradients are equal."""
    theirs, ours = twins(transformers, tmp_path)
    module = sys.modules[type(theirs).__module__]
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    masks = [torch.stack([(x < 30), (y - 40) ** 2 + (x - 40) ** 2 < 200]), torch.stack([x + y < 60])]
    class_ids = [torch.tensor([1, 4]), torch.tensor([0])]
    base = {count: torch.rand(3, count, 2, dtype=torch.float64) for count in (40, 120, 10)}
    base[40][1] = base[40][0]  # theirs draws for one image at a time
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: base[shape[1]][: shape[0]])
    sample = module.sample_point
    monkeypatch.setattr(module, "sample_point", lambda maps, at, **given: sample(maps.to(at), at, **given))
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    given = [mask.double() for mask in masks]
    wanted = theirs.train()(image, mask_labels=given, class_labels=class_ids)
    truth = [segments(*each) for each in zip(class_ids, masks, strict=True)]
    terms = ours.train()(image, truth)
    torch.testing.assert_close(sum(terms.values()), wanted.loss.squeeze(), rtol=1e-6, atol=1e-9)
    wanted.loss.backward()
    sum(terms.values()).backward()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.grad is not None:  # of a norm that is not used
                parameter.copy_(parameter.grad)
    theirs.float().save_pretrained(tmp_path)
    gradients = mask2former.rename(load_file(tmp_path / "model.safetensors"))
    for name, parameter in ours.named_parameters():
        given = gradients[name].double()
        torch.testing.assert_close(parameter.grad, given, rtol=1e-5, atol=1e-6, msg=partial("{}: {}".format, name))


@pytest.mark.parametrize(
    ("name", "preset", "classes"),
    [
        ("m2f_R50_coco_panoptic", "mask2former_r50", 133),
        ("m2f_R50_coco_instance", "mask2former_r50", 80),
        ("m2f_R50_ade_semantic", "mask2former_r50", 150),
        ("m2f_swin_tiny_coco_panoptic", "mask2former_swin_tiny", 133),
        ("m2f_swin_tiny_coco_instance", "mask2former_swin_tiny", 80),
        ("m2f_swin_tiny_ade_semantic", "mask2former_swin_tiny", 150),
        ("hf_mask2former_swin_tiny_coco_panoptic", "mask2former_swin_tiny", 133),
        ("hf_mask2former_swin_tiny_coco_instance", "mask2former_swin_tiny", 80),
        ("hf_mask2former_swin_tiny_ade_semantic", "mask2former_swin_tiny", 150),
    ],
)
def test_the_published_files_fit(manifest, name, preset, classes):
    with torch.device("meta"):
        network = replace(mask2former.PRESETS[preset], num_classes=classes).build()
    renamed = mask2former.rename(manifest(name))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_the_authors_first_files_fit(manifest):
    """They have the pixel decoder's parts beside the predictor, and call what queries start from static."""
    given = manifest("m2f_R50_coco_panoptic")
    old = {
        key.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.").replace("query_feat", "static_query"): tensor
        for key, tensor in given.items()
    }
    assert old.keys() != given.keys()
    assert mask2former.rename(old).keys() == mask2former.rename(given).keys()


@pytest.mark.parametrize(
    "key", ["sem_seg_head.predictor.other.weight", "sem_seg_head.pixel_decoder.layer_2.weight", "criterion.other", "x"]
)
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no Mask2Former has"):
        mask2former.rename({key: torch.zeros(1)})


def test_weights_belong_to_presets():
    for name, weights in mask2former.WEIGHTS.items():
        assert weights.preset in mask2former.PRESETS and not weights.is_permissive
        assert name.startswith(weights.preset.removesuffix("_semantic"))
    large = [
        mask2former.PRESETS[weights.preset].num_queries for name, weights in mask2former.WEIGHTS.items() if "large" in name
    ]
    assert sorted(large) == [100, 100, 200, 200]


# By laws and messages


SMALL = replace(TINY, encoder=timm.Config(name="regnetx_002"), encoder_norm="group", points=40)


def two_images():
    y, x = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    return torch.randn(2, 3, 64, 96), [
        segments(torch.tensor([0, 3, 3]), torch.stack([y < 30, (y >= 30) & (x < 50), (y >= 30) & (x >= 50)])),
        segments(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 64, 96)),
    ]


@pytest.mark.parametrize("encoder_norm", ["group", "batch", "frozen"])
def test_each_parameter_gets_a_gradient(encoder_norm):
    """With segments, and without any: processes that share a step wait for the gradient of each parameter."""
    network = replace(SMALL, encoder_norm=encoder_norm).build().train()
    image, truth = two_images()
    for given in (truth, truth[1:] * 2):
        network.zero_grad()
        terms = network(image, given, torch.Generator().manual_seed(0))
        sum(terms.values()).backward()
        assert terms.keys() == {"classes", "masks", "dice"} and all(term.isfinite() for term in terms.values())
        for name, parameter in network.named_parameters():
            assert (parameter.grad is not None and parameter.grad.isfinite().all()) == parameter.requires_grad, name


def test_the_generator_decides_the_loss():
    network = SMALL.build().eval()
    image, truth = two_images()
    terms = [network(image, truth, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert terms[0] == terms[1] != terms[2]


def test_learns_in_half_precision():
    """As under mixed precision: masks, costs and losses are computed in single."""
    torch.manual_seed(0)
    network = SMALL.build().train()
    image, truth = two_images()
    wanted = network(image, truth, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        terms = network(image, truth, torch.Generator().manual_seed(0))
    sum(terms.values()).backward()
    assert all(term.dtype == torch.float32 for term in terms.values())
    torch.testing.assert_close(sum(terms.values()), sum(wanted.values()), rtol=0.1, atol=0)
    assert all(each.grad is None or each.grad.isfinite().all() for each in network.parameters())


def test_frozen_norms_stay_as_they_are():
    network = replace(SMALL, encoder_norm="frozen").build().train()
    norms = [module for module in network.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training or norm.weight.requires_grad for norm in norms)


def test_attention_begins_as_the_paper_has_it():
    """Four heads look to the right, down, left and up; the places of each are 1 to 4 pixels away."""
    network = TINY.build()
    attention = next(module for module in network.modules() if isinstance(module, DeformableAttention))
    x, y, logits = attention.sample.bias.detach().view(3, 4, 3, 4)
    steps = torch.arange(1.0, 5).expand(3, 4)
    torch.testing.assert_close(x, torch.stack([steps, 0 * steps, -steps, 0 * steps]), rtol=0, atol=1e-5)
    torch.testing.assert_close(y, torch.stack([0 * steps, steps, 0 * steps, -steps]), rtol=0, atol=1e-5)
    assert not logits.any() and not attention.sample.weight.any()


def test_learns_what_it_sees():
    """A bright square on noise: after some steps one query says its class, and its mask is the square."""
    torch.manual_seed(0)
    network = replace(TINY, num_classes=2, num_queries=4, decoder_layers=2, encoder_layers=1).build().train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)

    def drawn():
        left, top = torch.randint(4, 36, (2,), generator=generator).tolist()
        mask = torch.zeros(1, 64, 64, dtype=torch.bool)
        mask[0, top : top + 20, left : left + 24] = True
        return torch.randn(3, 64, 64, generator=generator) * 0.1 + mask, segments(torch.tensor([1]), mask)

    losses = []
    for _ in range(20):
        images, truth = zip(*[drawn() for _ in range(2)], strict=True)
        loss = sum(network(torch.stack(images), truth, generator).values())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    image, truth = drawn()
    with torch.no_grad():
        found = network.eval()(image[None])
    best = found.class_logits[0].softmax(-1)[:, 1].argmax()
    mask = F.interpolate(found.mask_logits[:, best][None], scale_factor=4, mode="bilinear")[0, 0] > 0
    overlap = (mask & (truth.planes[0] == 1)).sum() / (mask | (truth.planes[0] == 1)).sum()
    assert overlap > 0.5


def test_counts_are_checked():
    with pytest.raises(SettingError, match="num_queries is 0; it must be 1 or more"):
        replace(TINY, num_queries=0)
    with pytest.raises(SettingError, match="width is 36 and num_heads is 8; .* multiple of both num_heads and 4, such as 256"):
        replace(TINY, width=36, num_heads=8)


def test_images_must_be_padded():
    with pytest.raises(ShapeError, match="48 x 64, but this network needs sides divisible by 32"):
        TINY.build()(torch.randn(1, 3, 48, 64))


def test_the_authors_resnet_strides_on_its_3x3():
    assert mask2former.PRESETS["mask2former_r50"].encoder == resnet.Config(stride_on="3x3")
