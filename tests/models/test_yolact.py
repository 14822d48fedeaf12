"""YOLACT against the authors'. Axes: B, C, K, N priors, Q, M places, P planes, H, W, h, w."""

import re
import zlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import darknet, mit, resnet
from segwright.inference.engine import OpenVINOEngine
from segwright.layers.object_truth import ObjectTruth
from segwright.models import yolact
from segwright.models._yolact_loss import PriorPredictions, crop_mask

SIDE = 138  # of the golden images
TINY = resnet.Config(block="basic", depths=(1, 1, 1, 1))
SMALL = yolact.Config(num_classes=3, encoder=TINY, width=16, prior_sizes=(8, 16, 32, 64, 96), max_objects=20)
TINY_MIT = mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 1, 1))
PLUS = replace(
    SMALL, encoder=resnet.Config(depths=(1, 1, 1, 1), deformable_every=1), sizes_per_level=2, rescores=True, max_objects=10
)
EMPTY = ObjectTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(1, 64, 96, dtype=torch.int32))


@cache
def authors(golden):
    """The golden file, our network with its weights, and its images."""
    file = golden("yolact_a")
    network = replace(yolact.PRESETS["yolact_resnet50"], prior_sizes=(6.0, 12.0, 24.0, 48.0, 96.0)).build().eval()
    network.load_state_dict(yolact.rename(file.weights))
    return file, network, torch.from_numpy(drawn(file)).float()


def drawn(file):
    """The images, by the rule that the golden file names."""
    seed, shape = file.meta["recipe"]["seed"], file.meta["inputs"]["x"]["shape"]
    return np.random.RandomState(zlib.crc32(f"{seed}:in:x".encode())).standard_normal(shape)


def ellipses(boxes: torch.Tensor) -> ObjectTruth:
    """The truth of a golden image: an ellipse in each box, in a plane of its own."""
    centres = (torch.arange(SIDE) + 0.5) / SIDE
    masks = []
    for x1, y1, x2, y2, _ in boxes.tolist():
        across, down = ((centres - (x1 + x2) / 2) / (x2 - x1)) ** 2, ((centres - (y1 + y2) / 2) / (y2 - y1)) ** 2
        masks.append(across + down[:, None] < 0.25)
    numbers = torch.arange(1, len(masks) + 1, dtype=torch.int32)[:, None, None]
    return ObjectTruth(boxes[:, :4] * SIDE, boxes[:, 4].long(), torch.stack(masks) * numbers)


def small_network(config=SMALL, seed=0):
    torch.manual_seed(seed)
    network = config.build().eval()
    with torch.no_grad():
        for name, parameter in network.head.named_parameters():
            parameter.mul_(3 if name.startswith("classify") else 1)  # so that some priors are sure of something
    return network


def test_what_each_prior_says_equals_the_authors(golden):
    file, network, image = authors(golden)
    with torch.no_grad():
        found, finest = network.predict(image)
        outputs = {
            "priors": torch.cat([found.priors[:, :2] + found.priors[:, 2:], 2 * (found.priors[:, 2:] - found.priors[:, :2])], 1)
            / (2 * SIDE),  # theirs are centres and sides
            "proto": found.prototypes.permute(0, 2, 3, 1),
            "loc": found.deltas,
            "conf": found.logits,
            "mask": found.coefficients,
            "segm": network.semantic(finest),
        }
    for depth, output in outputs.items():  # the first failure says where to look
        file.check(depth, output)


def test_each_term_of_the_loss_equals_the_authors(golden):
    file, network, image = authors(golden)
    with torch.no_grad():
        losses = network(image, [ellipses(file.input(f"targets.{number}")) for number in range(2)])
    for depth, name in (("B", "box"), ("M", "mask"), ("C", "class"), ("S", "semantic")):
        file.check(f"loss.{depth}", losses[name][None])


@pytest.mark.parametrize(("kind", "places"), [("fast", 100), ("cross_class", 200)])
def test_what_is_kept_equals_the_authors(golden, monkeypatch, kind, places):
    file, network, image = authors(golden)
    settings = {"is_one_per_place": kind == "cross_class", "max_objects": places, "margin": 0.0}
    monkeypatch.setattr(network, "config", replace(network.config, **settings))
    with torch.no_grad():
        found = network(image)
    for number in range(2):
        boxes = file.arrays[f"out/{kind}.{number}.box"].clamp(0, 1)  # theirs are cut at the image later
        count = len(boxes)
        file.check(f"{kind}.{number}.score", found.scores[number, :count])
        assert found.class_ids[number, :count].equal(file.arrays[f"out/{kind}.{number}.class"])
        torch.testing.assert_close(found.boxes[number, :count] / SIDE, boxes, rtol=1e-4, atol=2e-5)
        assert not found.scores[number, count:].any()  # without classes, places are left


def test_masks_equal_the_authors(golden):
    """By their rule, which cuts masks at their boxes before it enlarges them; and by ours, but for the pixels at the cuts."""
    file, network, image = authors(golden)
    sides = (83, 97)
    with torch.no_grad():
        found = network(image[:1])
    is_kept = file.arrays["out/fast.0.score"] > 0.1
    boxes = file.arrays["out/fast.0.box"][is_kept]
    masks = found.masks[0][is_kept]
    cut = masks * crop_mask(boxes * masks.shape[2], masks.shape[1:])
    theirs = F.interpolate(cut[None], sides, mode="bilinear")[0] > 0.5
    facts = file.meta["outputs"]["post.mask"]
    sample = theirs.flatten()[:: facts["stride"]]
    assert (sample != file.arrays["out/post.mask@sample"].bool()).float().mean() <= 0.002
    assert (boxes.clamp(0, 1) * torch.tensor([97, 83, 97, 83])).long().equal(file.arrays["out/post.box"])
    x1, y1, x2, y2 = (found.boxes[0][is_kept] / SIDE * torch.tensor([97.0, 83.0, 97.0, 83.0]))[..., None, None].unbind(1)
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in sides), indexing="ij")
    inside = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
    ours = (F.interpolate(masks[None], sides, mode="bilinear")[0] >= 0.5) & inside
    cell = 97 / masks.shape[2]
    deep = (x1 + 2 * cell <= x) & (x < x2 - 2 * cell) & (y1 + 2 * cell <= y) & (y < y2 - 2 * cell)
    far = (x < x1 - cell) | (x > x2 + 2 * cell) | (y < y1 - cell) | (y > y2 + 2 * cell)
    assert deep.any() and ours[deep].equal(theirs[deep]) and not ours[far].any() and not theirs[far].any()


@pytest.mark.parametrize("name", ["resnet50", "base", "im700", "resnet50_pascal"])
def test_the_published_files_fit(manifest, name):
    with torch.device("meta"):
        network = yolact.PRESETS[f"yolact_{name}"].build()
    published = manifest(f"yolact_{name}")
    renamed = yolact.rename(published)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}
    dead = {"backbone.layer1.0.conv1.weight": torch.zeros(1), "fpn.downsample_layers.2.bias": torch.zeros(1)}
    assert yolact.rename(published | dead).keys() == renamed.keys()  # as files of version 1.0 hold them


@pytest.mark.parametrize("name", ["darknet53", "plus_resnet50", "plus_base"])
def test_names_in_files_whose_lists_are_not_here_find_their_places(name):
    with torch.device("meta"):
        ours = yolact.PRESETS[f"yolact_{name}"].build().state_dict()
    theirs = {their_name(key): tensor for key, tensor in ours.items()}
    expected = {
        "darknet53": ("backbone._preconv.0.weight", "backbone.layers.4.4.conv2.1.running_mean"),
        "plus_resnet50": ("backbone.layers.1.3.conv2.conv_offset_mask.weight", "maskiou_net.maskiou_net.10.bias"),
        "plus_base": ("backbone.layers.2.21.conv2.bias", "backbone.layers.2.22.conv2.weight"),
    }[name]
    assert {*expected, "proto_net.10.weight", "prediction_layers.0.conf_layer.bias", "fpn.lat_layers.0.weight"} <= theirs.keys()
    assert "backbone.layers.2.22.conv2.bias" not in theirs  # of 23 blocks, every third from the first on
    renamed = yolact.rename(theirs)
    assert renamed.keys() == ours.keys() and all(renamed[key] is tensor for key, tensor in ours.items())


def their_name(key):
    """The authors' name of a tensor."""
    if key.startswith("encoder.stages") or key.startswith("encoder.stem"):
        module, kind, last = key.removeprefix("encoder.").rsplit(".", 2)
        module = module.replace("stages.", "layers.") if module != "stem" else "_preconv"
        return f"backbone.{module}.{0 if kind == 'conv' else 1}.{last}"
    if key.startswith("encoder."):
        key = key.replace("encoder.", "backbone.").replace(".offset_mask", ".conv_offset_mask")
        return re.sub(r"\.layer(\d)", lambda found: f".layers.{int(found[1]) - 1}", key)
    places = {
        "pyramid.lateral.": "fpn.lat_layers.",
        "pyramid.output.": "fpn.pred_layers.",
        "pyramid.down.": "fpn.downsample_layers.",
        "prototypes.": "proto_net.",
        "head.shared.": "prediction_layers.0.upfeature.0.",
        "head.box.": "prediction_layers.0.bbox_layer.",
        "head.classify.": "prediction_layers.0.conf_layer.",
        "head.coefficients.": "prediction_layers.0.mask_layer.",
        "semantic.": "semantic_seg_conv.",
        "rescore.": "maskiou_net.maskiou_net.",
    }
    ((ours, theirs),) = [place for place in places.items() if key.startswith(place[0])]
    rest = key.removeprefix(ours)
    return theirs + (f"{2 - int(rest[0])}{rest[1:]}" if ours in ("pyramid.lateral.", "pyramid.output.") else rest)


def test_by_hand_the_priors_of_the_coarsest_level():
    network = replace(SMALL, prior_sizes=(8, 16, 32, 64, 100), sizes_per_level=2).build()
    with torch.no_grad():
        low, high = network.predict(torch.zeros(1, 3, 128, 256))[0].priors.split(2, dim=1)
    priors = torch.cat([(low + high) / 2, high - low], dim=1)
    assert len(priors) == (16 * 32 + 8 * 16 + 4 * 8 + 2 * 4 + 1 * 2) * 6
    assert priors[-12:, :2].tolist() == [[64, 64]] * 6 + [[192, 64]] * 6
    root = 2**0.5
    sides = [[100, 100], [100 / root, 100 * root], [100 * root, 100 / root]]
    torch.testing.assert_close(priors[-6:, 2:], torch.tensor(sides + [[root * w, root * h] for w, h in sides]))
    square = replace(SMALL, has_square_priors=True).build()._sizes()[0]
    assert [round(width, 3) for width, height in square if width == height] == [8, 5.657, 11.314]


def test_by_hand_objects_of_the_heads_words():
    """Two priors of one object, one of another class, one that is of none; masks of the first prototype or its inverse."""
    network = replace(SMALL, max_objects=4, margin=0.25).build().eval()
    image = torch.zeros(1, 3, 64, 96)
    priors = torch.tensor([[12.0, 12, 28, 28], [14.0, 12, 30, 28], [20.0, 20, 100, 40], [46.0, 46, 54, 54]])
    probs = torch.tensor([[0.1, 0.8, 0.06, 0.04], [0.3, 0.7, 0.0, 0.0], [0.05, 0.0, 0.0, 0.95], [0.97, 0.01, 0.01, 0.01]])
    coefficients = torch.zeros(1, 4, 32)
    coefficients[0, :, 0] = torch.tensor([1.0, 0.0, -1.0, 0.0])
    prototypes = torch.zeros(1, 32, 16, 24)
    prototypes[0, 0, :, 12:] = 100.0
    found = PriorPredictions(torch.zeros(1, 4, 4), probs.clamp(min=1e-9).log()[None], coefficients, prototypes, priors)
    objects = network._detections(found, image)
    torch.testing.assert_close(objects.scores, torch.tensor([[0.95, 0.8, 0.06, 0.04]]))
    assert objects.class_ids.tolist() == [[2, 0, 1, 2]]  # the first prior also has a score in its other classes
    margins = torch.tensor([[4.0, 4.0], [4.0, 4.0]])  # a quarter of 16 pixels is a cell; of 80 it would be more than one
    assert objects.boxes[0, :2].tolist() == [[20 - margins[0, 0], 16, 96, 44], [8, 8, 32, 32]]
    assert objects.regions.tolist() == [[[0, 0, 96, 64]] * 4] and objects.masks.shape == (1, 4, 16, 24)
    assert (
        objects.masks[0, 0, 0].tolist() == [0.5] * 12 + [0.0] * 12
        and objects.masks[0, 1, 0].tolist() == [0.5] * 12 + [1.0] * 12
    )
    alone = replace(network.config, is_one_per_place=True)
    network.config = alone
    objects = network._detections(found, image)
    torch.testing.assert_close(objects.scores, torch.tensor([[0.95, 0.8, 0.0, 0.0]]))
    assert objects.class_ids[0, :2].tolist() == [2, 0] and not objects.boxes[0, 2:].any() and not objects.masks[0, 2:].any()


@pytest.mark.parametrize("config", [replace(SMALL, is_one_per_place=True), PLUS], ids=["one", "plus"])
def test_in_a_batch_alone_and_converted_at_another_size_objects_are_the_same(config):
    network = small_network(config)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 128, 160, generator=generator)
    images[1] *= 0.1
    engine = OpenVINOEngine(network)
    engine(np.zeros((2, 3, 96, 96), np.float32))
    with torch.no_grad():
        objects = network(images)
        alone = [network(image[None]) for image in images]
    converted = map(torch.from_numpy, engine(images.numpy()))
    assert objects.scores[0, 0] > 0 and (objects.scores.diff(dim=1) <= 0).all()
    for whole, parts, other in zip(objects, zip(*alone, strict=True), converted, strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(whole, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [SMALL, PLUS], ids=["plain", "plus"])
def test_an_image_of_one_grey_holds_nothing_and_places_stay_empty(config):
    network = config.build().eval()
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.zero_()
        network.head.classify.bias[::4] = 9.0  # the background of each prior
        objects = network(torch.zeros(2, 3, 64, 96))
    assert not any(each.any() for each in objects[:4]) and objects.masks.shape == (2, config.max_objects, 16, 24)
    assert objects.regions[1, 0].tolist() == [0, 0, 96, 64]


@pytest.mark.parametrize("config", [SMALL, PLUS], ids=["plain", "plus"])
def test_gradients_reach_every_parameter_with_objects_and_all_are_there_without(config):
    network = small_network(config).train()
    spans = ((0, 0, 8, 8), (12, 4, 30, 18), (32, 0, 64, 32), (0, 2, 52, 62), (0, 0, 96, 64))  # of each level's priors
    planes = torch.zeros(len(spans), 64, 96, dtype=torch.int32)
    for number, (x1, y1, x2, y2) in enumerate(spans):
        planes[number, y1:y2, x1:x2] = number + 1
    truth = ObjectTruth(torch.tensor(spans).float(), torch.tensor([1, 0, 2, 1, 0]), planes)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    losses = network(images, [truth, EMPTY], torch.Generator().manual_seed(3))
    assert set(losses) == {"class", "box", "mask", "semantic"} | ({"mask_overlap"} if config.rescores else set())
    sum(losses.values()).backward()
    silent = [name for name, parameter in network.named_parameters() if not parameter.grad.any()]
    assert [name for name in silent if not name.startswith("rescore.")] == []  # a ReLU may end what rescoring says
    network.zero_grad()
    losses = network(images, [EMPTY, EMPTY])
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
    assert network.head.classify.weight.grad.any() and not network.head.box.weight.grad.any()


def test_learns_one_image_by_heart():
    network = small_network(replace(SMALL, num_classes=2, encoder=TINY_MIT)).train()
    planes = torch.zeros(1, 64, 64, dtype=torch.int32)
    planes[0, 4:30, 4:30], planes[0, 24:60, 32:62] = 1, 2
    truth = ObjectTruth(torch.tensor([[4.0, 4, 30, 30], [32.0, 24, 62, 60]]), torch.tensor([0, 1]), planes)
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    image = 0.1 * noise + (planes == 1).float() - (planes == 2).float()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(50):
        optimiser.zero_grad()
        sum(network(image, [truth]).values()).backward()
        optimiser.step()
    with torch.no_grad():
        objects = network(image)
    assert sorted(objects.class_ids[0, :2].tolist()) == [0, 1] and objects.scores[0, 1] > 0.9 > 0.6 > objects.scores[0, 2]
    for place in range(2):
        number = int(objects.class_ids[0, place])
        x1, y1, x2, y2 = objects.boxes[0, place].round().int().tolist()
        mask = F.interpolate(objects.masks[:, place, None], (64, 64), mode="bilinear")[0, 0] >= 0.5
        mask[:y1], mask[y2:], mask[:, :x1], mask[:, x2:] = False, False, False, False
        wanted = planes[0] == number + 1
        assert (mask & wanted).sum() / (mask | wanted).sum() > 0.7


@pytest.mark.parametrize("encoder", [darknet.Config(depths=(0, 0, 0, 0, 0)), replace(TINY, output_stride=16), TINY_MIT])
def test_stands_on_other_encoders_and_other_channels(encoder):
    network = replace(SMALL, in_channels=5, encoder=encoder).build()
    assert network.divisors == (32, 32)
    losses = network(torch.randn(2, 5, 64, 96), [EMPTY, EMPTY])
    assert sum(losses.values()).isfinite()


def test_rescoring_by_hand_and_masks_too_small_for_it():
    rescore = small_network(PLUS).rescore
    with torch.no_grad():
        for parameter in rescore.parameters():
            parameter.zero_()
        for number in range(0, 10, 2):
            rescore[number].weight[0, 0, 1, 1] = 1.0  # every second cell
        rescore[10].weight[:, 0] = torch.tensor([1.0, 0.5, -1.0])[:, None, None]
        masks = torch.zeros(2, 1, 63, 63)
        masks[0, 0, 31, 31], masks[1, 0, 30, 31] = 0.8, 0.8  # the cell that is left looks at 2 (2 (2 (2 (1) + 1) + 1) + 1) + 1
        torch.testing.assert_close(rescore(masks), torch.tensor([[0.8, 0.4, 0.0], [0.0, 0.0, 0.0]]))
        assert rescore(torch.ones(1, 1, 16, 24)).shape == (1, 3)


def test_weights_say_what_their_images_look_like():
    assert len(yolact.WEIGHTS) == 6
    for weights in yolact.WEIGHTS.values():
        config = yolact.PRESETS[weights.preset]
        assert weights.num_classes == config.num_classes and 550 % config.divisor == 0
        is_darknet = isinstance(config.encoder, darknet.Config)
        assert weights.intake.mean[0] == (0 if is_darknet else 123.68) and weights.intake.std[0] == (
            255 if is_darknet else 58.4
        )
        assert re.fullmatch(r"hf://dbolya/yolact-[\w-]+/yolact_\w+_54_800000\.pth", weights.address)


@pytest.mark.parametrize("key", ["backbone.fc.weight2", "fpn.lat_layers.3.bias", "prediction_layers.1.bbox_layer.bias"])
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key.removeprefix('backbone.')}', which no (YOLACT|ResNet) has"):
        yolact.rename({key: torch.zeros(1)})


def test_refuses_what_cannot_be_meant():
    for name in ("in_channels", "num_classes", "width", "sizes_per_level", "divisor", "masks_to_train", "max_objects"):
        with pytest.raises(SettingError, match=f"{name} is 0; give a whole number"):
            replace(SMALL, **{name: 0})
    with pytest.raises(SettingError, match=r"prior_sizes is \[8, 16\]; give the side in pixels of priors of each of the 5"):
        replace(SMALL, prior_sizes=(8, 16))
    with pytest.raises(SettingError, match="margin is -1; give a share"):
        replace(SMALL, margin=-1)
    with pytest.raises(ShapeError, match="there are 2 images and the truths of 1; give one ObjectTruth for each image"):
        SMALL.build()(torch.zeros(2, 3, 64, 96), [EMPTY])
