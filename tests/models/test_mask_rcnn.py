"""Mask R-CNN against torchvision's and detectron2's. Axes: B, C, K, N, H, W."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d, masks_to_boxes

from segwright.core.errors import FormatError
from segwright.encoders import resnet, timm
from segwright.layers.object_truth import ObjectTruth
from segwright.models import mask_rcnn

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # torchvision's, for values of 0 to 1
SIDE = 7  # of what the box head sees
GOLDEN = {"num_classes": 5, "proposals": 40, "proposals_in_training": 60, "max_objects": 8}
NAMES = {"classes": "classifier", "boxes": "box_reg", "masks": "mask", "objectness": "objectness", "proposals": "rpn_box_reg"}


def test_equals_torchvision_at_every_depth(golden, objects):
    file = golden("tv_maskrcnn_a")
    config = replace(mask_rcnn.PRESETS["maskrcnn_resnet50_fpn"], sampled_anchors=100_000, sampled_regions=10_000, **GOLDEN)
    network = config.build().double()
    weights = {key: tensor.double() for key, tensor in file.weights.items()}
    network.load_state_dict(mask_rcnn.rename(weights))
    images = [file.input(f"image{number}").double() / 255 for number in (0, 1)]
    given = [
        {name: file.input(f"gt_{name}{number}") for name in ("boxes", "labels", "masks")}
        | {"boxes": file.input(f"gt_boxes{number}").double()}
        for number in (0, 1)
    ]
    batch, wanted = GeneralizedRCNNTransform(128, 192, MEAN, STD)(images, given)
    file.check("transformed_batch", batch.tensors)
    with torch.no_grad():
        check_torchvision_answers(file, network.eval(), batch, [image.shape[1:] for image in images], weights, objects)
        truth = [objects.in_planes(each["boxes"], each["labels"] - 1, each["masks"]) for each in wanted]
        terms = network.train()(batch.tensors, truth)  # its norms are frozen
    assert terms.keys() == NAMES.keys()
    for ours, theirs in NAMES.items():
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
    none = F.linear(
        hidden_of(network.box_head, pooled),
        *(weights[f"roi_heads.box_predictor.bbox_pred.{kind}"][:4] for kind in ("weight", "bias")),
    )
    file.check("roi.box_regression", torch.cat([none, deltas.flatten(1)], dim=1))
    hidden = network.mask_head.hidden(network.regions.pool(maps, regions, 2 * SIDE))
    predictor = [weights[f"roi_heads.mask_predictor.mask_fcn_logits.{kind}"] for kind in ("weight", "bias")]
    file.check("roi.mask_logits", F.conv2d(hidden, *predictor))
    found = network.find_boxes(maps, sides)
    masks = network.find_masks(maps, found).split([len(each.boxes) for each in found])
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
        mask_rcnn.PRESETS["mask_rcnn_r_50_fpn"],
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
        objects.check_found(file, found, network.find_masks(maps, found), sides)
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
        ("d2_mask_rcnn_R_50_FPN_3x", "mask_rcnn_r_50_fpn"),
        ("d2_mask_rcnn_R_101_FPN_3x", "mask_rcnn_r_101_fpn"),
        ("d2_faster_rcnn_R_50_FPN_3x", "faster_rcnn_r_50_fpn"),
    ],
)
def test_the_published_files_fit(manifest, name, preset):
    with torch.device("meta"):
        network = mask_rcnn.PRESETS[preset].build()
    renamed = mask_rcnn.rename(manifest(name))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def torchvision_twin(norm_layer):
    """torchvision's Mask R-CNN for 3 classes on ResNet-18, of its first form or, with batch norms, of its second; and ours."""
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=norm_layer, trainable_layers=5)
    options = {}
    config = replace(
        mask_rcnn.PRESETS["maskrcnn_resnet50_fpn"], encoder=resnet.Config(block="basic", depths=(2, 2, 2, 2), norm_eps=0.0)
    )
    if norm_layer is nn.BatchNorm2d:
        backbone = _resnet_fpn_extractor(models.resnet18(), 5, norm_layer=norm_layer)
        options = {
            "rpn_head": RPNHead(256, 3, conv_depth=2),
            "box_head": FastRCNNConvFCHead((256, SIDE, SIDE), [256] * 4, [1024], norm_layer=norm_layer),
            "mask_head": MaskRCNNHeads(256, [256] * 4, 1, norm_layer=norm_layer),
        }
        config = replace(mask_rcnn.PRESETS["maskrcnn_resnet50_fpn_v2"], encoder=resnet.PRESETS["resnet18"])
    else:
        overwrite_eps(backbone, 0.0)
    sizes = (8, 16, 32, 64, 128)
    theirs = MaskRCNN(
        backbone,
        4,
        min_size=50,
        image_mean=[0] * 3,
        image_std=[1] * 3,
        rpn_anchor_generator=AnchorGenerator(tuple((size,) for size in sizes), ((0.5, 1.0, 2.0),) * 5),
        rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=50,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=40,
        box_detections_per_img=12,
        **options,
    )
    counts = {"proposals": 50, "proposals_in_training": 100, "sampled_anchors": 64, "sampled_regions": 40, "max_objects": 12}
    return theirs, replace(config, num_classes=3, anchor_sizes=sizes, **counts).build()


def drawn_images():
    """Two images of 50 x 75, padded to multiples of 32, and their objects, some of which overlap."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 50, 75, generator=generator, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(50), torch.arange(75), indexing="ij")
    targets = []
    for places in ([(14, 20, 9), (20, 28, 13), (36, 70, 8)], [(25, 40, 16)]):
        masks = torch.stack([(y - row) ** 2 + (x - column) ** 2 <= radius**2 for row, column, radius in places])
        boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
        labels = torch.arange(len(places)) % 3 + 1
        targets.append({"boxes": boxes.double(), "labels": labels, "masks": masks.to(torch.uint8)})
    return images, F.pad(images, (0, 21, 0, 14)), targets


@pytest.mark.parametrize("norm_layer", [FrozenBatchNorm2d, nn.BatchNorm2d])
def test_a_training_step_equals_torchvision(peers, objects, monkeypatch, norm_layer):
    """The same seed draws the same anchors and regions: so losses and gradients are equal, images of odd sides and all."""
    torch.manual_seed(0)
    theirs, ours = torchvision_twin(norm_layer)
    peers.randomised(theirs)
    ours.double().load_state_dict(mask_rcnn.rename(theirs.state_dict()))
    images, batch, targets = drawn_images()
    truth = [objects.in_planes(each["boxes"], each["labels"] - 1, each["masks"]) for each in targets]
    assign = theirs.rpn.assign_targets_to_anchors
    monkeypatch.setattr(theirs.rpn, "assign_targets_to_anchors", lambda *given: in_float64(*assign(*given)))
    monkeypatch.setattr(theirs.transform, "torch_choice", lambda sizes: sizes[0])  # there is one, but a number is drawn
    torch.manual_seed(1)
    wanted = theirs.train()(list(images), targets)
    torch.manual_seed(1)
    terms = ours.train()(batch, truth)
    for name, term in terms.items():
        torch.testing.assert_close(
            term, wanted[f"loss_{NAMES[name]}"], rtol=1e-9, atol=1e-12, msg=partial("{}: {}".format, name)
        )
    for losses in (wanted, terms):
        sum(losses.values()).backward()
    gradients = mask_rcnn.rename({name: each.grad for name, each in theirs.named_parameters() if each.grad is not None})
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(
                parameter.grad, gradients[name], rtol=1e-6, atol=1e-9, msg=partial("{}: {}".format, name)
            )


def in_float64(labels, boxes):
    """Labels of anchors, which torchvision makes float32, and boxes."""
    return [each.double() for each in labels], boxes


def test_finds_what_torchvision_finds(peers):
    torch.manual_seed(0)
    theirs, ours = torchvision_twin(nn.BatchNorm2d)
    peers.randomised(theirs)
    ours.double().load_state_dict(mask_rcnn.rename(theirs.state_dict()))
    images, batch, _ = drawn_images()
    with torch.no_grad():
        wanted = theirs.eval()(list(images))
        maps = ours.eval().regions(batch)
        found = ours.find_boxes(maps, [(50, 75)] * 2)
        masks = ours.find_masks(maps, found).split([len(each.boxes) for each in found])
    for each, mask, theirs_found in zip(found, masks, wanted, strict=True):
        assert len(each.boxes) > 6
        torch.testing.assert_close(each.boxes, theirs_found["boxes"])
        torch.testing.assert_close(each.scores, theirs_found["scores"])
        assert torch.equal(each.class_ids + 1, theirs_found["labels"])
        torch.testing.assert_close(paste_masks_in_image(mask[:, None], each.boxes, (50, 75)), theirs_found["masks"])


@pytest.mark.parametrize("key", ["roi_heads.box_head.fc9.weight", "roi_heads.keypoint_head.0.weight", "other"])
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no such network has"):
        mask_rcnn.rename({key: torch.zeros(1)})


def test_torchvisions_class_of_nothing_is_the_last_here():
    names = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    given = {f"roi_heads.{name}.bias": torch.arange(12.0 if "bbox" in name else 3.0) for name in names}
    ours = mask_rcnn.rename(given | {"rpn.head.conv.bias": torch.zeros(1)})
    assert ours["box_head.classify.bias"].tolist() == [1, 2, 0]
    assert ours["box_head.deltas.bias"].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert ours["mask_head.classes.bias"].tolist() == [1, 2]


def test_weights_belong_to_presets():
    for weights in mask_rcnn.WEIGHTS.values():
        assert weights.preset in mask_rcnn.PRESETS and not weights.is_permissive
        assert weights.num_classes == mask_rcnn.PRESETS[weights.preset].num_classes


SMALL = replace(
    mask_rcnn.PRESETS["mask_rcnn_small"],
    num_classes=2,
    encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)),
    pyramid_width=16,
)


@pytest.mark.parametrize("channels", [1, 5])
def test_learns_from_objects_of_one_pixel_at_borders_and_of_many(objects, channels):
    torch.manual_seed(0)
    network = replace(SMALL, in_channels=channels, encoder=timm.Config(name="regnetx_002")).build().train()
    y, x = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    pixel, corner = (y == 5) & (x == 7), (y >= 60) & (x >= 90)
    boxes = torch.tensor([[7.0, 5, 8, 6], [90, 60, 96, 64]])
    few = objects.in_planes(boxes, torch.tensor([0, 1]), torch.stack([pixel, corner]))
    numbers = (y // 2 * 48 + x // 2 + 1).int()  # 1536 objects of 2 x 2
    corners = torch.stack([numbers.new_tensor(range(1536)) % 48, numbers.new_tensor(range(1536)) // 48], dim=1) * 2.0
    many = ObjectTruth(torch.cat([corners, corners + 2], dim=1), torch.zeros(1536, dtype=torch.int64), numbers[None])
    terms = network(torch.randn(2, channels, 64, 96), [few, many], torch.Generator().manual_seed(0))
    sum(terms.values()).backward()
    assert all(term.isfinite() and term > 0 for term in terms.values())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_nothing_is_found_where_nothing_is_proposed():
    network = SMALL.build().eval()
    with torch.no_grad():
        maps = network.regions(torch.randn(1, 3, 64, 64))
        found = network.find_boxes(maps, [(0, 0)])  # all lies outside
        masks = network.find_masks(maps, found)
    assert len(found[0].boxes) == 0 and masks.shape == (0, 28, 28)


def test_learns_what_it_sees(objects):
    """A bright square on noise: after some steps the loss has fallen, and the surest object holds the middle of the square."""
    torch.manual_seed(0)
    few = {"proposals_in_training": 50, "sampled_regions": 32}
    config = replace(SMALL, pyramid_width=64, num_classes=1, anchor_sizes=(8, 16, 32), **few)
    network = config.build().train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)

    def drawn():
        left, top = torch.randint(4, 36, (2,), generator=generator).tolist()
        mask = torch.zeros(1, 64, 64, dtype=torch.bool)
        mask[0, top : top + 20, left : left + 24] = True
        box = torch.tensor([[left, top, left + 24.0, top + 20]])
        return torch.randn(3, 64, 64, generator=generator) * 0.1 + mask, objects.in_planes(box, torch.tensor([0]), mask)

    losses = []
    for _ in range(40):
        images, truth = zip(*[drawn() for _ in range(2)], strict=True)
        loss = sum(network(torch.stack(images), truth, generator).values())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)  # as in training
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    image, truth = drawn()
    with torch.no_grad():
        found = network.eval()(image[None])
    assert found.scores[0, 0] > 0.3
    left, top, right, bottom = found.boxes[0, 0]
    x, y = truth.boxes[0].reshape(2, 2).mean(dim=0)
    assert left < x < right and top < y < bottom
    assert found.masks[0, 0, 7:21, 7:21].mean() > 0.5
