"""Mask R-CNN against torchvision's and detectron2's. Axes: B, C, K, N, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from segwright.models import mask_rcnn

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # torchvision's, for values of 0 to 1
SIDE = 7  # of what the box head sees
GOLDEN = {"num_classes": 5, "proposals": 40, "proposals_in_training": 60, "max_objects": 8}


def test_equals_torchvision_at_every_depth(golden, objects):
    file = golden("tv_maskrcnn_a")
    config = replace(
        mask_rcnn.PRESETS["maskrcnn_resnet50_fpn"], sampled_anchors=100_000, sampled_regions=10_000, **GOLDEN
    )
    network = config.build().double()
    weights = {key: tensor.double() for key, tensor in file.weights.items()}
    network.load_state_dict(mask_rcnn.rename(weights))
    images = [file.input(f"image{number}").double() / 255 for number in (0, 1)]
    given = [
        {name: file.input(f"gt_{name}{number}") for name in ("boxes", "labels", "masks")} | {"boxes": file.input(f"gt_boxes{number}").double()}
        for number in (0, 1)
    ]
    batch, wanted = GeneralizedRCNNTransform(128, 192, MEAN, STD)(images, given)
    file.check("transformed_batch", batch.tensors)
    with torch.no_grad():
        check_torchvision_answers(file, network.eval(), batch, [image.shape[1:] for image in images], weights, objects)
        truth = [objects.in_planes(each["boxes"], each["labels"] - 1, each["masks"]) for each in wanted]
        terms = network.train()(batch.tensors, truth)  # its norms are frozen
    names = {"classes": "classifier", "boxes": "box_reg", "masks": "mask", "objectness": "objectness", "proposals": "rpn_box_reg"}
    assert terms.keys() == names.keys()
    for ours, theirs in names.items():
        file.check(f"loss.loss_{theirs}", terms[ours].reshape(1))


def check_torchvision_answers(file, network, batch, given_sides, weights, objects):
    """See that each depth equals torchvision's, whose classes are 0 for none, and whose boxes are cut off at each image."""
    sides = batch.image_sizes
    maps = network.regions(batch.tensors)
    for level, name in zip(maps, ("0", "1", "2", "3", "pool"), strict=True):
        file.check(f"fpn.{name}", level)
    scores = network.regions.scores(maps)
    objects.check_scores(file, ("rpn.objectness.", "rpn.deltas."), scores, maps)
    file.check("rpn.anchors0", torch.cat(network.regions.anchors(maps)))
    for number, found in enumerate(network.regions.propose(maps, scores, sides, 40)):
        file.check(f"rpn.proposals.{number}", found)
    regions = [file.input(f"given_boxes{number}").double() for number in (0, 1)]
    pooled = network.regions.pool(maps, regions, SIDE)
    file.check("roi.box_pool", pooled)
    logits, deltas = network.box_head(pooled)
    file.check("roi.class_logits", logits.roll(1, 1))
    none = F.linear(hidden_of(network.box_head, pooled), *(weights[f"roi_heads.box_predictor.bbox_pred.{kind}"][:4] for kind in ("weight", "bias")))
    file.check("roi.box_regression", torch.cat([none, deltas.flatten(1)], dim=1))
    hidden = network.mask_head.hidden(network.regions.pool(maps, regions, 2 * SIDE))
    predictor = [weights[f"roi_heads.mask_predictor.mask_fcn_logits.{kind}"] for kind in ("weight", "bias")]
    file.check("roi.mask_logits", F.conv2d(hidden, *predictor))
    found = network.find_boxes(maps, sides)
    masks = network._masks(maps, found).split([len(each.boxes) for each in found])
    for number, (each, mask, inside, outside) in enumerate(zip(found, masks, sides, given_sides, strict=True)):
        boxes = each.boxes * torch.tensor([outside[1] / inside[1], outside[0] / inside[0]] * 2)
        file.check(f"det{number}.boxes", boxes)
        file.check(f"det{number}.labels", each.class_ids + 1)
        file.check(f"det{number}.scores", each.scores)
        file.check(f"det{number}.masks", paste_masks_in_image(mask[:, None], boxes, outside))


def hidden_of(head, pooled):
    """What a box head's last layers see."""
    x = head.convolutions(pooled).flatten(1)
    for linear in head.linears:
        x = F.relu(linear(x))
    return x


def test_equals_detectron2_at_every_depth(golden, objects):
    file = golden("d2_mask_rcnn_a")
    config = replace(
        mask_rcnn.PRESETS["mask_rcnn_R_50_FPN"],
        anchor_sizes=(16, 32, 64, 96, 128),
        sampled_anchors=200_000,
        sampled_regions=20_000,
        **GOLDEN,
    )
    network = config.build()
    network.load_state_dict(mask_rcnn.rename(file.weights))
    batch, sides = objects.batch(file)
    with torch.no_grad():
        maps = network.eval().regions(batch)
        for number, level in enumerate(maps, start=2):
            file.check(f"fpn.p{number}", level)
        scores = network.regions.scores(maps)
        objects.check_scores(file, ("rpn.objectness", "rpn.deltas"), scores, maps)
        for number in (0, 4):
            file.check(f"rpn.anchors{number}", network.regions.anchors(maps)[number])
        for number, found in enumerate(network.regions.propose(maps, scores, sides, 40)):
            file.check(f"rpn.proposals{number}.boxes", found)
        regions = [file.input(f"given_boxes{number}") for number in (0, 1)]
        class_ids = torch.cat([file.input(f"given_classes{number}") for number in (0, 1)])
        pooled = network.regions.pool(maps, regions, SIDE)
        file.check("roi.box_pool", pooled)
        logits, deltas = network.box_head(pooled)
        file.check("roi.class_logits", logits)
        file.check("roi.deltas", deltas.flatten(1))
        pooled = network.regions.pool(maps, regions, 2 * SIDE)
        logits = network.mask_head.classes(network.mask_head.hidden(pooled))
        file.check("mask.logits", logits)
        torch.testing.assert_close(network.mask_head(pooled, class_ids), logits[torch.arange(8), class_ids])
        found = network.find_boxes(maps, sides)
        objects.check_found(file, found, network._masks(maps, found), sides)
        terms = network(batch, [objects.truth(file, number) for number in (0, 1)])
    names = {"classes": "cls", "boxes": "box_reg", "masks": "mask", "objectness": "rpn_cls", "proposals": "rpn_loc"}
    for ours, theirs in names.items():
        file.check(f"loss.loss_{theirs}", terms[ours].reshape(1))


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("torchvision_maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"),
        ("torchvision_maskrcnn_resnet50_fpn_file", "maskrcnn_resnet50_fpn"),
        ("torchvision_maskrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2"),
        ("torchvision_fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn"),
        ("torchvision_fasterrcnn_resnet50_fpn_file", "fasterrcnn_resnet50_fpn"),
        ("torchvision_fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2"),
        ("d2_mask_rcnn_R_50_FPN_3x", "mask_rcnn_R_50_FPN"),
        ("d2_mask_rcnn_R_101_FPN_3x", "mask_rcnn_R_101_FPN"),
        ("d2_faster_rcnn_R_50_FPN_3x", "faster_rcnn_R_50_FPN"),
    ],
)
def test_the_published_files_fit(manifest, name, preset):
    with torch.device("meta"):
        network = mask_rcnn.PRESETS[preset].build()
    renamed = mask_rcnn.rename(manifest(name))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}
