"""PointRend for objects against detectron2's, and its loss against loops. Axes: B, C, K, R, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import resnet
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.point_sampling import objects_at_points, points_in_boxes, sample_at_points, uncertain_points
from segwright.layers.region_sampling import RegionSample
from segwright.models import mask_rcnn, pointrend

SMALL = replace(
    pointrend.PRESETS["pointrend_small"],
    num_classes=3,
    encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)),
    pyramid_width=32,
    proposals=12,
    proposals_in_training=12,
    sampled_regions=24,
    box_width=16,
    coarse_width=8,
    linear_width=16,
    point_width=8,
    mask_side=28,
    max_objects=5,
)


def truth_of(*sides):
    """Two objects of classes 2 and 0 in each image of some sides (H, W); a third of none."""
    found = []
    for height, width in sides:
        planes = torch.zeros(1, height, width, dtype=torch.int32)
        planes[0, 4:30, 6:40], planes[0, 34:60, 20:44] = 1, 2
        boxes = torch.tensor([[6.0, 4, 40, 30], [20, 34, 44, 60]])
        found.append(ObjectTruth(boxes, torch.tensor([2, 0]), planes))
    return found


def test_equals_detectron2_at_every_depth(golden, objects):
    file = golden("d2_pointrend_rcnn_a")
    config = replace(
        pointrend.PRESETS["pointrend_rcnn_r_50_fpn"],
        num_classes=5,
        pyramid_width=64,
        anchor_sizes=(16, 32, 64, 96, 128),
        proposals=40,
        box_width=96,
        coarse_width=48,
        linear_width=96,
        point_width=64,
        mask_side=56,
        max_objects=8,
    )
    network = config.build().eval()
    network.load_state_dict(pointrend.rename(file.weights))
    batch, sides = objects.batch(file)
    with torch.no_grad():
        detector, maps = network.boxes, network.boxes.regions(batch)
        for number, level in enumerate(maps, start=2):
            file.check(f"fpn.p{number}", level)
        scores = detector.regions.scores(maps)
        objects.check_scores(file, ("rpn.objectness", "rpn.deltas"), scores, maps)
        for number, found in enumerate(detector.regions.propose(maps, scores, sides, 40)):
            file.check(f"rpn.proposals{number}.boxes", found)
        regions = [file.input(f"given_boxes{number}") for number in (0, 1)]
        class_ids = torch.cat([file.input(f"given_classes{number}") for number in (0, 1)])
        file.check("mask.coarse_logits", network.masks.coarse(maps[0], regions))
        for number, probs in enumerate(network.masks(maps[0], regions, class_ids)[:, None].sigmoid().split(4)):
            file.check(f"mask.refined_prob{number}", probs)
        found = detector.find_boxes(maps, sides)
        logits = network.masks(maps[0], [each.boxes for each in found], torch.cat([each.class_ids for each in found]))
        objects.check_found(file, found, logits.sigmoid(), sides)


@pytest.mark.parametrize("is_old", [False, True])
def test_the_published_file_fits(manifest, is_old):
    with torch.device("meta"):
        network = pointrend.PRESETS["pointrend_rcnn_r_50_fpn"].build()
    weights = manifest("d2_pointrend_rcnn_R_50_FPN_3x_coco")
    if is_old:  # the names of 2020
        weights = {key.replace("mask_head.coarse_head.fc", "mask_coarse_head.coarse_mask_fc"): w for key, w in weights.items()}
        for part in ("coarse", "point"):
            weights = {key.replace(f"mask_head.{part}_head", f"mask_{part}_head"): w for key, w in weights.items()}
    renamed = pointrend.rename(weights)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


# By a slow twin and by hand


def test_masks_learn_where_boxes_move_and_points_where_coarse_masks_are_unsure():
    """The two terms of masks, written out: binary cross-entropy of cells of 7 x 7, and of 196 points, of the true class."""
    torch.manual_seed(0)
    network = SMALL.build().double()
    for layer in (network.masks.classes, network.masks.points.classify):
        torch.nn.init.normal_(layer.weight)
    truth, fine = truth_of((64, 64), (60, 50)), torch.randn(2, 32, 16, 16, dtype=torch.float64)
    regions = [torch.tensor([[5.0, 3, 41, 33], [18, 36, 45, 58]]).double(), torch.tensor([[8.0, 8, 30, 30]]).double()]
    indices = [torch.tensor([0, 1]), torch.tensor([0])]
    samples = [
        RegionSample(boxes, each.class_ids[index], index) for boxes, each, index in zip(regions, truth, indices, strict=True)
    ]
    terms = network._mask_losses(fine, regions, samples, truth, torch.Generator().manual_seed(1))
    coarse = network.masks.coarse(fine, regions)
    own = torch.stack([coarse[0, 2], coarse[1, 0], coarse[2, 2]])
    points = uncertain_points(own[:, None], lambda x: -x[:, 0].abs(), 196, torch.Generator().manual_seed(1))
    cells, at_points, row = [], [], 0
    for image, (boxes, each, index) in enumerate(zip(regions, truth, indices, strict=True)):
        for box, number in zip(boxes, index.tolist(), strict=True):
            x = torch.arange(7 * 40, dtype=torch.float64).add(0.5) / 40  # so many samples that their mean is the share covered
            inside = torch.stack(torch.meshgrid(x / 7, x / 7, indexing="ij")[::-1], dim=-1).reshape(1, -1, 2)
            mask = objects_at_points(
                each.planes, torch.tensor([number]), points_in_boxes(inside, box[None], each.planes.shape[1:])
            )
            share = F.avg_pool2d(mask.reshape(1, 1, 280, 280), 40)[0, 0]
            cells.append(F.binary_cross_entropy_with_logits(own[row], share))
            k = int(each.class_ids[number])
            place = points_in_boxes(points[row : row + 1], box[None], (64, 64))  # the padded image
            features = sample_at_points(fine[image : image + 1], place)
            logits = network.masks.points(features, sample_at_points(coarse[row : row + 1], points[row : row + 1]))[0, k]
            place = points_in_boxes(points[row : row + 1], box[None], each.planes.shape[1:])
            at_points.append(
                F.binary_cross_entropy_with_logits(logits, objects_at_points(each.planes, torch.tensor([number]), place)[0])
            )
            row += 1
    torch.testing.assert_close(terms["masks"], torch.stack(cells).mean(), rtol=0.02, atol=0)  # RoIAlign has fewer samples
    torch.testing.assert_close(terms["points"], torch.stack(at_points).mean())


def test_boxes_that_masks_learn_in_move_for_their_class_and_stay_in_the_image():
    truth = truth_of((64, 64))
    regions = torch.tensor([[10.0, 10, 30, 30], [20, 34, 44, 60], [0, 0, 9, 9]])
    deltas = torch.zeros(3, 3, 4)
    deltas[0, 2] = torch.tensor([5.0, 0, 0, 0])  # to the right by half a side, in tenths
    deltas[0, 1] = 1.0  # of another class
    deltas[1, 0] = torch.tensor([100.0, 0, 0, 0])  # ten sides: out of the image
    sample = RegionSample(regions, torch.tensor([2, 0, 3]), torch.tensor([0, 1]))
    (moved,) = pointrend.moved_regions([sample], deltas, truth)
    assert moved.tolist() == [[20, 10, 40, 30], [20, 34, 44, 60]]
    deltas[0, 2, 0] = 20.0  # two sides: partly out
    assert pointrend.moved_regions([sample], deltas, truth)[0][0].tolist() == [50, 10, 64, 30]


# By laws


def test_gradients_reach_every_parameter_and_a_seed_decides_the_loss():
    torch.manual_seed(0)
    network, image, truth = SMALL.build(), torch.randn(2, 3, 64, 64), truth_of((64, 64), (60, 50))
    for layer in (network.masks.classes, network.masks.points.classify):
        torch.nn.init.normal_(layer.weight)
    runs = [network(image, truth, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert list(runs[0]) == ["objectness", "proposals", "classes", "boxes", "masks", "points"]
    assert runs[0] == runs[1] and runs[0]["points"] != runs[2]["points"]
    sum(runs[0].values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), f"no gradient reaches {name}"


def test_an_image_without_objects_gives_gradients_of_zero_to_masks():
    network = SMALL.build()
    none = ObjectTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(1, 64, 64, dtype=torch.int32))
    terms = network(torch.randn(1, 3, 64, 64), [none], torch.Generator().manual_seed(0))
    assert terms["masks"] == 0 and terms["points"] == 0
    loss = sum(terms.values())
    loss.backward()
    assert torch.isfinite(loss) and all(parameter.grad is not None for parameter in network.parameters())
    assert not any(parameter.grad.any() for parameter in network.masks.parameters())


def test_detections_have_static_shapes_and_masks_in_their_boxes():
    torch.manual_seed(0)
    network = SMALL.build().eval()
    torch.nn.init.normal_(network.boxes.box_head.classify.weight)  # sure of something
    with torch.no_grad():
        found = network(torch.randn(2, 3, 64, 96))
    assert found.boxes.shape == (2, 5, 4) and found.masks.shape == (2, 5, 28, 28) and found.class_ids.shape == (2, 5)
    assert torch.equal(found.boxes, found.regions) and (found.scores[:, 0] > 0).all()
    assert (found.masks[found.scores > 0] > 0).all() and not found.masks[found.scores == 0].any()


def test_finds_the_boxes_that_mask_rcnn_finds():
    torch.manual_seed(0)
    network = SMALL.build().eval()
    torch.nn.init.normal_(network.boxes.box_head.classify.weight)
    other = SMALL.detector().build().eval()
    other.load_state_dict(network.boxes.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image).boxes, other(image).boxes)


# By its messages


@pytest.mark.parametrize("key", ["roi_heads.mask_head.point_head.fc4.weight", "roi_heads.mask_head.mask_fcn1.weight"])
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no such network has"):
        pointrend.rename({key: torch.zeros(1)})


@pytest.mark.parametrize("name", ["num_classes", "pyramid_width", "coarse_width", "linear_width", "point_width", "max_objects"])
def test_refuses_settings_that_cannot_be_meant(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        replace(SMALL, **{name: 0})


def test_refuses_a_side_that_doubling_does_not_come_to():
    with pytest.raises(SettingError, match="mask_side is 100; .* give 28, 56, 112, 224 or 448"):
        replace(SMALL, mask_side=100)
    assert replace(SMALL, mask_side=112).build().masks.side == 112


def test_weights_say_what_their_images_look_like():
    for weights in pointrend.WEIGHTS.values():
        assert weights.num_classes == pointrend.PRESETS[weights.preset].num_classes
        assert weights.intake == mask_rcnn.DETECTRON2_INTAKE
