"""Cascade Mask R-CNN against detectron2's. Axes: B, C, K, N, H, W."""

from dataclasses import replace

import pytest
import torch

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import resnet
from segwright.layers.box_coding import decode_boxes
from segwright.models import cascade_mask_rcnn

SHALLOW = resnet.Config(block="basic", depths=(1, 1, 1, 1))
NAMES = {"masks": "mask", "objectness": "rpn_cls", "proposals": "rpn_loc"}
NAMES |= {f"classes_{stage + 1}": f"cls_stage{stage}" for stage in range(3)}
NAMES |= {f"boxes_{stage + 1}": f"box_reg_stage{stage}" for stage in range(3)}


def test_equals_detectron2_at_every_depth(golden, objects):
    file = golden("d2_cascade_mask_rcnn_a")
    config = replace(
        cascade_mask_rcnn.PRESETS["cascade_mask_rcnn_r_50_fpn"],
        num_classes=5,
        pyramid_width=64,
        box_width=96,
        mask_width=48,
        anchor_sizes=(16, 32, 64, 96, 128),
        proposals=40,
        proposals_in_training=60,
        sampled_anchors=200_000,
        sampled_regions=20_000,
        max_objects=8,
    )
    network = config.build()
    network.load_state_dict(cascade_mask_rcnn.rename(file.weights))
    batch, sides = objects.batch(file)
    with torch.no_grad():
        maps = network.eval().regions(batch)
        for number, level in enumerate(maps, start=2):
            file.check(f"fpn.p{number}", level)
        scores = network.regions.scores(maps)
        objects.check_scores(file, ("rpn.objectness", "rpn.deltas"), scores, maps)
        for number, found in enumerate(network.regions.propose(maps, scores, sides, 40)):
            file.check(f"rpn.proposals{number}.boxes", found)
        given = [file.input(f"given_boxes{number}") for number in (0, 1)]
        for stage, (logits, deltas, regions) in enumerate(network.stages(maps, given, sides)):
            file.check(f"cascade.stage{stage}.class_logits", logits)
            file.check(f"cascade.stage{stage}.deltas", deltas.flatten(1))
            weights = cascade_mask_rcnn.WEIGHTS_OF_STAGES[stage]
            file.check(f"cascade.stage{stage}.boxes", decode_boxes(deltas.flatten(0, 1), torch.cat(regions), weights))
        pooled = network.regions.pool(maps, given, 14)
        file.check("mask.logits", network.mask_head.classes(network.mask_head.hidden(pooled)))
        found = network.find_boxes(maps, sides)
        objects.check_found(file, found, network.find_masks(maps, found), sides)
        terms = network(batch, [objects.truth(file, number) for number in (0, 1)])
    assert terms.keys() == NAMES.keys()
    for ours, theirs in NAMES.items():
        file.check(f"loss.loss_{theirs}", terms[ours].reshape(1))


def test_the_published_file_fits(manifest):
    with torch.device("meta"):
        network = cascade_mask_rcnn.PRESETS["cascade_mask_rcnn_r_50_fpn"].build()
    renamed = cascade_mask_rcnn.rename(manifest("d2_cascade_mask_rcnn_R_50_FPN_3x"))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_rename_refuses_strangers():
    with pytest.raises(FormatError, match="hold 'roi_heads.box_head.3.fc1.weight', which no such network has"):
        cascade_mask_rcnn.rename({"roi_heads.box_head.3.fc1.weight": torch.zeros(1)})


def test_refuses_settings_that_cannot_be_meant():
    with pytest.raises(SettingError, match="box_width is 0; it must be 1 or more"):
        cascade_mask_rcnn.Config(box_width=0)


def test_the_small_one_learns_what_it_sees_from_random_weights(objects):
    """A bright square on noise: after some steps the surest object holds its middle, and its mask is known.

    The loss of boxes rises meanwhile, as regions of later stages come to overlap objects.
    """
    torch.manual_seed(0)
    few = {"proposals": 50, "proposals_in_training": 50, "sampled_regions": 32, "anchor_sizes": (8, 16, 32, 64, 128)}
    config = replace(cascade_mask_rcnn.PRESETS["cascade_mask_rcnn_small"], num_classes=1, encoder=SHALLOW, **few)
    network, generator = config.build().train(), torch.Generator().manual_seed(0)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in network.modules())  # so that small batches will do
    optimiser, seen = torch.optim.AdamW(network.parameters(), lr=1e-3), []
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 20:40, 12:36] = True
    truth = objects.in_planes(torch.tensor([[12.0, 20, 36, 40]]), torch.tensor([0]), mask)
    for _ in range(35):
        image = torch.randn(1, 3, 64, 64, generator=generator) * 0.1 + mask
        terms = network(image, [truth], generator)
        assert terms.keys() == NAMES.keys() and all(term.isfinite() for term in terms.values())
        optimiser.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)  # as in training
        optimiser.step()
        seen.append([terms[name].item() for name in ("objectness", "classes_1", "masks")])
    assert all(last < 0.6 * first for first, last in zip(seen[0], seen[-1], strict=True))
    with torch.no_grad():
        found = network.eval()(image)
    left, top, right, bottom = found.boxes[0, 0]
    assert found.scores[0, 0] > 0.3 and left < 24 < right and top < 30 < bottom
