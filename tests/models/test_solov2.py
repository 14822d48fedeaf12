"""SOLOv2 against AdelaiDet's. Axes: B, C, K, G cells, E, M places, H, W."""

from dataclasses import replace
from math import ceil

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import mit, resnet
from segwright.layers.grid_targets import cells_of_objects, sampled_masks
from segwright.layers.object_truth import ObjectTruth
from segwright.models import solov2

MEAN = torch.tensor([123.675, 116.28, 103.53])  # red, green, blue
GRIDS = (8, 6, 5, 4, 3)
SMALL = replace(
    solov2.PRESETS["solov2_small"],
    num_classes=2,
    encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)),
    pyramid_width=32,
    head_width=32,
    branch_width=32,
    kernel_width=32,
    grids=GRIDS,
    max_objects=20,
)


def truth_of(planes: torch.Tensor, class_ids: list[int]) -> ObjectTruth:
    """Objects of planes (P, H, W) with the boxes around them."""
    boxes = []
    for number in range(1, len(class_ids) + 1):
        ys, xs = (planes == number).any(dim=0).nonzero().T
        boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    return ObjectTruth(torch.tensor(boxes).float().reshape(-1, 4), torch.tensor(class_ids, dtype=torch.int64), planes)


def nothing(side: int = 64) -> ObjectTruth:
    return truth_of(torch.zeros(1, side, side, dtype=torch.int32), [])


@pytest.fixture(scope="module")
def network() -> solov2.SOLOv2:
    torch.manual_seed(0)
    return SMALL.build().eval()


@pytest.fixture
def authors(golden):
    """The golden file, our config of its network, its padded images without their mean, and their truths."""
    file = golden("solov2_a")
    theirs = file.config["SOLOV2"]
    config = replace(
        solov2.PRESETS["solov2_resnet50_caffe"],
        num_classes=theirs["NUM_CLASSES"],
        head_width=theirs["INSTANCE_CHANNELS"],
        branch_width=theirs["MASK_CHANNELS"],
        kernel_width=theirs["NUM_KERNELS"],
        grids=tuple(theirs["NUM_GRIDS"]),
        scale_ranges=tuple(map(tuple, theirs["FPN_SCALE_RANGES"])),
        max_objects=theirs["MAX_PER_IMG"],
    )
    batch, truths = torch.zeros(2, 3, 128, 128), []
    for number, place in enumerate(batch):
        image = file.input(f"image{number}").flip(0).float()
        place[:, : image.shape[1], : image.shape[2]] = image - MEAN[:, None, None]
        planes = torch.zeros(1, 128, 128, dtype=torch.int32)
        for index, mask in enumerate(file.input(f"gt_masks{number}"), start=1):
            planes[0, : mask.shape[0], : mask.shape[1]][mask] = index
        truths.append(ObjectTruth(file.input(f"gt_boxes{number}"), file.input(f"gt_classes{number}"), planes))
    return file, config, batch, truths


@torch.no_grad()
def test_equals_adelaidet_at_every_depth(authors):
    """Images are blue, green, red there, and padded after the mean is off."""
    file, config, batch, truths = authors
    network = config.build().eval()
    network.load_state_dict(solov2.rename(file.weights))
    levels = network.pyramid(network.encoder(batch)[-4:])
    outputs = {f"fpn.p{number}": level for number, level in enumerate(levels, start=2)}
    logits, kernels = network._cells(levels)
    outputs |= {f"cate_pred{number}": grid for number, grid in enumerate(logits)}
    outputs |= {f"kernel_pred{number}": grid for number, grid in enumerate(kernels)}
    outputs |= {"mask_pred": network._features(levels), "point_nms0": solov2.point_nms(logits[0].sigmoid())}
    for depth, output in outputs.items():  # the first failure says where to look
        file.check(depth, output)
    losses = network(batch, truths)
    file.check("loss.loss_cate", losses["class"][None])
    file.check("loss.loss_ins", losses["mask"][None])
    detections = network(batch)
    for number in range(2):
        file.check(f"det{number}.scores", detections.scores[number])
        assert torch.equal(detections.class_ids[number], file.arrays[f"out/det{number}.classes"])
        masks = pasted(detections, number, file.config["images"][number], file.config["outputs"][number])
        facts, limits = file.meta["outputs"][f"det{number}.masks"], file.meta["tolerance"][f"det{number}.masks"]
        sample = masks.flatten()[:: facts["stride"]]
        wrong = (sample != file.arrays[f"out/det{number}.masks@sample"].bool()).float().mean()
        assert wrong <= limits["max_mismatch_fraction"]
        areas = file.arrays[f"out/det{number}.mask_area"]
        assert (masks.flatten(1).sum(dim=1) - areas).abs().max() <= file.meta["tolerance"][f"det{number}.mask_area"]["atol"]


def pasted(detections, number: int, sides: list[int], out: list[int]) -> torch.Tensor:
    """Masks bool (M, *out) of an image of `sides`, at the size that the authors give them back in.

    They take the stride from the height of the image before it was padded, which stretches the masks of the second.
    """
    height, width = sides
    masks = detections.masks[number][None]
    full = F.interpolate(masks, scale_factor=ceil(height / masks.shape[2]), mode="bilinear")
    return F.interpolate(full[:, :, :height, :width], size=out, mode="bilinear")[0] > 0.5


def test_equals_adelaidets_targets(authors):
    file, config, _, truths = authors
    grids = config.grids
    for number, truth in enumerate(truths):
        cells = cells_of_objects(truth, grids, config.scale_ranges)
        classes = torch.where(cells > 0, truth.class_ids[(cells - 1).clamp(min=0)], config.num_classes)
        levels = [level.nonzero()[:, 0] for level in (cells > 0).split([side**2 for side in grids])]
        outputs = {
            "cate_label": classes,
            "ind_label": (cells > 0).long(),
            "grid_order": torch.cat(levels),
            "num_ins_per_level": torch.tensor([len(level) for level in levels]),
            "ins_area": sampled_masks(truth, 4).of(cells[cells > 0] - 1).sum(dim=1),
        }
        for name, output in outputs.items():
            assert torch.equal(output, file.arrays[f"out/target.{name}.{number}"]), name


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("adet_SOLOv2_R50_3x", "solov2_resnet50_caffe"),
        ("adet_SOLOv2_R101_3x", "solov2_resnet101_caffe"),
        ("solo_mmdet_SOLOv2_R50_3x", "solov2_resnet50"),
        ("solo_mmdet_SOLOv2_R101_3x", "solov2_resnet101"),
    ],
)
def test_the_published_files_fit(manifest, name, preset):
    with torch.device("meta"):
        network = solov2.PRESETS[preset].build()
    renamed = solov2.rename(manifest(name))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_the_first_convolution_of_adelaidets_files_alone_is_turned_round():
    stem = torch.arange(3.0).reshape(1, 3, 1, 1)
    theirs = solov2.rename({"backbone.bottom_up.stem.conv1.weight": stem, "pixel_mean": torch.zeros(3, 1, 1)})
    assert theirs["encoder.conv1.weight"].flatten().tolist() == [2, 1, 0]
    assert solov2.rename({"backbone.conv1.weight": stem})["encoder.conv1.weight"].flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("preset", ["solov2_light_448_resnet18", "solov2_light_448_resnet34", "solov2_light_448_resnet50"])
def test_light_variants_have_the_size_of_the_published_files(preset):
    """The files hold each weight and, for what is trained, its momentum; stem and first stage are frozen."""
    sizes = {"solov2_light_448_resnet18": 146, "solov2_light_448_resnet34": 226, "solov2_light_448_resnet50": 250}
    with torch.device("meta"):
        network = solov2.PRESETS[preset].build()
    frozen = sum(
        weight.numel() for name, weight in network.named_parameters() if name.startswith(("encoder.conv1", "encoder.layer1"))
    )
    every = sum(weight.numel() for weight in network.parameters())
    assert (2 * every - frozen) * 4e-6 == pytest.approx(sizes[preset], abs=1)  # MB


# What it learns from


def test_losses_of_hand_made_outputs():
    """Logits of 0 everywhere: each class of each cell costs 0.25 log 2 times its weight, and masks of a half cost by size."""
    network = SMALL.build()
    planes = torch.zeros(1, 64, 64, dtype=torch.int32)
    planes[0, 16:32, 16:32] = 1
    cells = sum(side**2 for side in GRIDS)
    truth = truth_of(planes, [1])
    losses = network._losses(torch.zeros(1, cells, 2), torch.zeros(1, cells, 32), torch.ones(1, 32, 16, 16), [truth])
    found = int((cells_of_objects(truth, GRIDS, SMALL.scale_ranges) > 0).sum())
    per_class = 0.25 * 0.6931 * (0.25 * found + 0.75 * (2 * cells - found))
    assert losses["class"].item() == pytest.approx(per_class / (found + 1), rel=1e-3)
    assert losses["mask"].item() == pytest.approx(3 * (1 - 2 * 8 / (64 + 16)), rel=1e-3)


def test_gradients_reach_every_parameter_with_objects_and_are_there_without():
    torch.manual_seed(0)
    network = SMALL.build().train()
    planes = torch.zeros(1, 64, 64, dtype=torch.int32)
    planes[0, 4:12, 4:12], planes[0, 20:60, 20:60], planes[0, 63, 0] = 1, 2, 3
    for truths, is_pulled in (([truth_of(planes, [0, 1, 1]), nothing()], True), ([nothing(), nothing()], False)):
        network.zero_grad()
        losses = network(torch.randn(2, 3, 64, 64), truths, generator=torch.Generator())
        assert all(torch.isfinite(loss) and loss.ndim == 0 for loss in losses.values())
        sum(losses.values()).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            if is_pulled or not name.startswith(("kernel_head", "branch", "join")):
                assert parameter.grad.any(), name
    assert losses["mask"] == 0 and losses["class"] > 0


def test_half_precision_learns_and_says_nearly_the_same(network):
    image, planes = torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.int32)
    planes[0, 10:40, 10:40] = 1
    other, truth = sure(network), [truth_of(planes, [1])]
    with torch.autocast("cpu", torch.bfloat16):
        losses, found = other(image, truth), other(image)
    sum(losses.values()).backward()
    for name, loss in other(image, truth).items():
        assert losses[name].dtype == torch.float32 and losses[name].item() == pytest.approx(loss.item(), rel=0.05)
    assert found.masks.dtype == torch.float32 and found.scores[0, 0].item() == pytest.approx(
        other(image).scores[0, 0].item(), abs=0.1
    )


def test_void_costs_nothing(network):
    image, planes = torch.randn(1, 3, 64, 64), torch.full((1, 64, 64), -1, dtype=torch.int32)
    losses = network(image, [truth_of(planes, [])])
    assert losses["class"] == 0 and losses["mask"] == 0


def test_one_pixel_and_three_hundred_objects_are_learned(network):
    image, planes = torch.randn(1, 3, 320, 320), torch.zeros(1, 320, 320, dtype=torch.int32)
    for number in range(300):
        planes[0, 16 * (number // 20) + 2, 16 * (number % 20) + 5] = number + 1
    losses = replace(SMALL, grids=(40, 36, 24, 16, 12)).build()(image, [truth_of(planes, [0] * 300)])
    assert losses["class"] > 0 and 2 < losses["mask"] <= 3
    losses["mask"].backward()


def circles(generator: torch.Generator) -> tuple[torch.Tensor, ObjectTruth]:
    """An image (3, 64, 64) of noise with circles of two colors, which are their classes, and its truth."""
    image, planes, class_ids = 0.3 * torch.randn(3, 64, 64, generator=generator), torch.zeros(1, 64, 64), []
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    for place in ((16, 16), (46, 20), (30, 46)):
        shift = torch.randint(-5, 6, (2,), generator=generator)
        inside = (y - place[0] - shift[0]) ** 2 + (x - place[1] - shift[1]) ** 2 < 50
        class_ids.append(int(torch.randint(0, 2, (), generator=generator)))
        planes[0][inside] = len(class_ids)
        image[class_ids[-1]][inside] += 2
    return image, truth_of(planes.int(), class_ids)


def test_learns_to_find_circles():
    """In twenty steps on two images the loss falls, and what comes out are the objects."""
    torch.manual_seed(0)
    encoder = mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 1, 1))
    widths = dict.fromkeys(("pyramid_width", "head_width", "branch_width", "kernel_width"), 64)
    network = replace(SMALL, encoder=encoder, **widths).build().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    images, truths = zip(*(circles(torch.Generator().manual_seed(seed)) for seed in (1, 2)), strict=True)
    curve = []
    for _ in range(20):
        losses = network(torch.stack(images), truths)
        loss = sum(losses.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        curve.append(loss.item())
    assert curve[-1] < 0.2 * curve[0]
    with torch.no_grad():
        found = network.eval()(torch.stack(images))
    for index, truth in enumerate(truths):
        boxes, wanted = found.boxes[index, :3], truth.boxes
        nearest = (boxes[:, None] - wanted[None]).abs().amax(dim=2).min(dim=0)
        assert nearest.values.max() <= 4  # pixels, as many as lie between two of a mask
        assert torch.equal(found.class_ids[index, nearest.indices], truth.class_ids)
        assert found.scores[index, 2] > 0.5 > found.scores[index, 3]


# What it says


def test_detections_have_the_shapes_of_the_places(network):
    with torch.no_grad():
        found = network(torch.randn(2, 3, 64, 96))
    assert found.boxes.shape == (2, 20, 4) and found.scores.shape == found.class_ids.shape == (2, 20)
    assert found.masks.shape == (2, 20, 16, 24) and found.class_ids.dtype == torch.int64
    assert not found.scores.any() and not found.boxes.any() and not found.masks.any()  # it has learned nothing yet


def sure(network: solov2.SOLOv2) -> solov2.SOLOv2:
    """The same network, that takes many cells for objects."""
    torch.manual_seed(0)
    other = SMALL.build().eval()
    other.load_state_dict(network.state_dict())
    torch.nn.init.normal_(other.class_head.last.weight, std=0.3)
    torch.nn.init.normal_(other.kernel_head.last.weight, std=0.1)
    torch.nn.init.zeros_(other.class_head.last.bias)
    return other


@torch.no_grad()
def test_objects_come_by_score_with_boxes_around_their_masks(network):
    found = sure(network)(torch.randn(2, 3, 64, 96))
    number = (found.scores > 0).sum(dim=1)
    assert (number > 3).all()
    assert (found.scores.diff(dim=1) <= 0).all() and (found.scores <= 1).all()
    for index in range(2):
        count = int(number[index])
        assert found.regions[index, :count].unique(dim=0).tolist() == [[0, 0, 96, 64]]
        pixels = F.interpolate(found.masks[index][None], scale_factor=4, mode="bilinear")[0] >= 0.5
        for box, mask in zip(found.boxes[index, :count].long(), pixels, strict=False):
            x1, y1, x2, y2 = box
            assert mask.any() and mask.sum() == mask[y1:y2, x1:x2].sum()
        assert not pixels[count:].any()


@torch.no_grad()
def test_what_is_recorded_has_a_place_for_each_candidate_and_says_the_same(network):
    other, image = sure(network), torch.randn(1, 3, 64, 64)
    traced = torch.jit.trace(other, (image,), check_trace=False, strict=False)
    for given in (image, torch.randn(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)):
        for ours, theirs in zip(other(given), traced(given), strict=True):
            places = other(given).scores[0] > 0
            torch.testing.assert_close(ours[0][places], theirs[0][places])
        torch.testing.assert_close(other(given).scores, traced(given)[1])  # group norms are traced as sums
    with torch.device("meta"):
        assert SMALL.build()(torch.empty(2, 3, 64, 64)).masks.shape == (2, 20, 16, 16)


@torch.no_grad()
def test_neighbours_of_a_peak_are_left_out():
    probs = torch.tensor([[[[0.9, 0.8, 0.1], [0.2, 0.95, 0.3], [0.1, 0.1, 0.4]]]])
    assert torch.equal(solov2.point_nms(probs), torch.tensor([[[[0.9, 0, 0], [0, 0.95, 0], [0, 0, 0]]]]))


@pytest.mark.parametrize(
    "encoder",
    [
        resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16),
        mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 1, 1)),
    ],
)
def test_stands_on_other_encoders(encoder):
    network = replace(SMALL, in_channels=4, encoder=encoder).build()
    planes = torch.zeros(1, 64, 64, dtype=torch.int32)
    planes[0, 10:30, 10:30] = 1
    losses = network(torch.randn(1, 4, 64, 64), [truth_of(planes, [0])])
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


# What it refuses


def test_refuses_truths_that_do_not_fit_and_the_remedy_works(network):
    image = torch.randn(1, 3, 64, 64)
    with pytest.raises(ShapeError, match="there are 1 images and truths of 2; give one ObjectTruth for each image"):
        network(image, [nothing(), nothing()])
    with pytest.raises(
        ShapeError, match="the truth is 32 x 32 and the images are 64 x 64; pad the planes as the images, with 0"
    ):
        network(image, [nothing(32)])
    padded = nothing(32)._replace(planes=F.pad(nothing(32).planes, (0, 32, 0, 32)))
    assert network(image, [padded])["class"] > 0


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "pyramid_width", "branch_width", "head_depth", "max_objects"])
def test_refuses_settings_that_cannot_be_meant(name):
    with pytest.raises(SettingError, match=f"{name} is 0; "):
        replace(SMALL, **{name: 0})


@pytest.mark.parametrize("name", ["head_width", "kernel_width"])
def test_refuses_widths_that_no_group_norm_takes_and_the_remedy_works(name):
    with pytest.raises(SettingError, match=f"{name} is 48; its channels are normalised in 32 groups, so give a multiple of 32"):
        replace(SMALL, **{name: 48})
    replace(SMALL, **{name: 256})


def test_refuses_levels_without_a_grid_a_range_or_an_area():
    wanted = "each of the 5 levels needs one of each, and a cell or more along a side"
    for change in ({"grids": (8, 8)}, {"scale_ranges": ((1, 64),)}, {"least_areas": (0,)}, {"grids": (8, 6, 5, 4, 0)}):
        with pytest.raises(SettingError, match=wanted):
            replace(SMALL, **change)


@pytest.mark.parametrize(
    "key", ["ins_head.cate_tower.weight", "mask_head.convs_all_levels.4.conv0.0.weight", "neck.fpn_convs.4.conv.bias"]
)
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no SOLOv2 has"):
        solov2.rename({key: torch.zeros(1)})
    with pytest.raises(FormatError, match=r"hold 'res2.0.other.weight', which no ResNet has"):
        solov2.rename({"backbone.bottom_up.res2.0.other.weight": torch.zeros(1)})


def test_no_published_weights_are_taken_by_themselves():
    for weights in solov2.WEIGHTS.values():
        assert not weights.is_permissive and weights.licence == "non-commercial"
        assert weights.intake.std == pytest.approx((58.395, 57.12, 57.375))
        assert weights.intake.mean == pytest.approx(tuple(MEAN.tolist()))
