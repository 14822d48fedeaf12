"""Panoptic FPN against detectron2's. Axes: B, C, K, N, H, W."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core import Classes, Grid
from segwright.core.errors import FormatError, SettingError
from segwright.decoding.panoptic_merge import decode_objects_and_stuff, merged
from segwright.decoding.paste import paste_masks
from segwright.decoding.run import Run
from segwright.decoding.stitch import FoundObjects
from segwright.encoders import resnet
from segwright.layers.object_truth import ObjectTruth
from segwright.models import panoptic_fpn
from segwright.transforms.prepare import View

THINGS, STUFF = 5, 5  # classes of the golden file, things first
CLASSES = Classes.of([f"class {k}" for k in range(THINGS + STUFF)], is_thing=[k < THINGS for k in range(THINGS + STUFF)])
GOLDEN = {
    **{"num_classes": THINGS + STUFF, "things": tuple(range(THINGS)), "anchor_sizes": (16, 32, 64, 96, 128)},
    **{"proposals": 40, "proposals_in_training": 60, "max_objects": 8, "sampled_anchors": 200_000, "sampled_regions": 20_000},
    **{"pyramid_width": 64, "box_width": 96, "mask_width": 48, "branch_width": 64},
}
NAMES = {"classes": "cls", "boxes": "box_reg", "masks": "mask", "objectness": "rpn_cls", "proposals": "rpn_loc"}
LEAST_AREA = 64  # pixels of stuff, in the golden file
SMALL = replace(
    panoptic_fpn.PRESETS["panoptic_fpn_small"],
    **{"num_classes": 4, "things": (1, 3), "encoder": resnet.Config(block="basic", depths=(1, 1, 1, 1))},
    **{"pyramid_width": 16, "branch_width": 32, "max_objects": 10},
)


def segments_of(file, number: int) -> ObjectTruth:
    """The truth of all segments of an image: a thing without a mask where the stuff map says things, and each stuff.

    detectron2 gets objects and map apart; pixels of things with no object, as these have, there are crowds.
    """
    labels = file.input(f"sem_seg{number}").int()
    present = labels.unique()
    class_ids = torch.where(present == 0, 0, present.long() - 1 + THINGS)
    planes = torch.searchsorted(present, labels).int() + 1
    return ObjectTruth(torch.zeros(len(present), 4), class_ids, planes[None])


def test_equals_detectron2_at_every_depth(golden, objects):
    file = golden("d2_panoptic_fpn_a")
    network = replace(panoptic_fpn.PRESETS["panoptic_fpn_r_50_3x"], **GOLDEN).build().eval()
    network.load_state_dict(panoptic_fpn.rename(file.weights))
    batch, sides = objects.batch(file)
    detector = network.detector
    with torch.no_grad():
        maps = detector.regions(batch)
        for number, level in enumerate(maps, start=2):
            file.check(f"fpn.p{number}", level)
        scores = detector.regions.scores(maps)
        objects.check_scores(file, ("rpn.objectness", "rpn.deltas"), scores, maps)
        for number in (0, 4):
            file.check(f"rpn.anchors{number}", detector.regions.anchors(maps)[number])
        for number, found in enumerate(detector.regions.propose(maps, scores, sides, 40)):
            file.check(f"rpn.proposals{number}.boxes", found)
        regions = [file.input(f"given_boxes{number}") for number in (0, 1)]
        pooled = detector.regions.pool(maps, regions, 7)
        file.check("roi.box_pool", pooled)
        logits, deltas = detector.box_head(pooled)
        file.check("roi.class_logits", logits)
        file.check("roi.deltas", deltas.flatten(1))
        pooled = detector.regions.pool(maps, regions, 14)
        file.check("mask.logits", detector.mask_head.classes(detector.mask_head.hidden(pooled)))
        quarter = network.semantic_logits(maps)
        file.check("sem.logits_quarter", quarter)
        file.check("sem.logits", F.interpolate(quarter, scale_factor=4, mode="bilinear"))
        found = detector.find_boxes(maps, sides)
        masks = detector.find_masks(maps, found)
        objects.check_found(file, found, masks, sides)
        terms = detector.losses(maps, [objects.truth(file, number) for number in (0, 1)], None)
        stuff = network.stuff_loss(quarter, batch.shape[2:], [segments_of(file, number) for number in (0, 1)])
    for ours, theirs in NAMES.items():
        file.check(f"loss.loss_{theirs}", terms[ours].reshape(1))
    file.check("loss.loss_sem_seg", stuff.reshape(1))
    check_merged(file, found, masks.split([len(each.boxes) for each in found]), sides)
    check_decoded(file, network, batch[0].numpy())


def check_merged(file, found, masks, sides):
    """See that objects, and the labels that detectron2 found, are merged as it does: the same segments on the same pixels."""
    for number, (each, probs, inside, outside) in enumerate(zip(found, masks, sides, file.config["outputs"], strict=True)):
        boxes = (each.boxes * torch.tensor([outside[1] / inside[1], outside[0] / inside[0]] * 2)).numpy()
        pixels = paste_masks(boxes, probs.numpy(), boxes, np.zeros(len(boxes), bool), tuple(outside))
        labels = file.arrays[f"out/panoptic{number}.sem_seg_argmax"].numpy()
        objects = FoundObjects(pixels, each.scores.numpy(), each.class_ids.numpy())
        check_segments(file, number, merged(objects, labels, CLASSES, least_area=LEAST_AREA))


def check_segments(file, number, ours, mismatch: float = 0.002):
    """See that a segmentation has detectron2's segments, rows of (number, is a thing, class, place among objects, area)."""
    rows = file.arrays[f"out/panoptic{number}.segments"].numpy()
    is_thing = rows[:, 1] == 1
    assert len(ours) == len(rows)
    assert ours.class_ids.tolist() == np.where(is_thing, rows[:, 2], rows[:, 2] - 1 + THINGS).tolist()
    assert ours.instance_ids.tolist() == np.where(is_thing, rows[:, 0], 0).tolist()
    wanted = file.arrays[f"out/panoptic{number}.seg"].numpy()
    assert len(ours.planes) == 1 and np.mean(ours.planes[0] != wanted) <= mismatch
    assert abs(ours.areas() - rows[:, 4])[~is_thing].max() <= max(6, mismatch * wanted.size)  # as the golden's own tolerance


def check_decoded(file, network, image):
    """See that the first image, which is neither padded nor drawn at another size, becomes detectron2's segments."""
    run = Run(engine=lambda images: answers(network, images), classes=CLASSES, divisors=network.divisors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segwright.decoding.panoptic_merge.LEAST_AREA", LEAST_AREA)
        check_segments(file, 0, decode_objects_and_stuff(run, View(image, image.shape[1:], Grid(image.shape[1:]))))


def answers(network, images):
    with torch.no_grad():
        return tuple(part.numpy() for part in network(torch.from_numpy(images)))


def test_all_terms_come_from_the_truth_of_all_segments(objects):
    """Things as objects of their own classes, void in neither, stuff in no object's planes."""
    torch.manual_seed(0)
    network = SMALL.build()
    image = torch.randn(1, 3, 64, 96)
    planes = torch.zeros(1, 64, 80, dtype=torch.int32)  # what is right of it is padding
    planes[0, :32], planes[0, 40:60, 10:50], planes[0, 10:30, 40:70], planes[0, :, :6] = 1, 2, 3, -1
    boxes = torch.tensor([[6.0, 0, 80, 32], [10, 40, 50, 60], [40, 10, 70, 30]])
    truth = ObjectTruth(boxes, torch.tensor([0, 3, 1]), planes)
    terms = network(image, [truth], torch.Generator().manual_seed(0))
    things = objects.in_planes(boxes[1:], torch.tensor([1, 0]), torch.stack([planes[0] == 2, planes[0] == 3]))
    things = things._replace(planes=torch.where(planes == -1, -1, things.planes.amax(0, keepdim=True)))
    maps = network.detector.regions(image)
    wanted = network.detector.losses(maps, [things], torch.Generator().manual_seed(0))
    logits = F.interpolate(network.semantic_logits(maps), scale_factor=4, mode="bilinear")[:, :, :, :80]
    class_map = torch.full((1, 64, 80), -100)
    class_map[planes == 1], class_map[planes > 1] = 1, 0  # class 0 is the first of stuff, 2 the second
    wanted["stuff"] = 0.5 * F.cross_entropy(logits, class_map)
    assert terms.keys() == wanted.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, wanted[name], msg=lambda text, name=name: f"{name}: {text}")


def test_an_image_of_stuff_alone_and_one_of_void_alone_have_losses_and_gradients():
    network = SMALL.build()
    stuff = ObjectTruth(torch.tensor([[0, 0, 64, 64.0]]), torch.tensor([2]), torch.ones(1, 64, 64, dtype=torch.int32))
    void = ObjectTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), -torch.ones(1, 64, 64, dtype=torch.int32))
    for truth, has_stuff in ((stuff, True), (void, False)):
        network.zero_grad()
        terms = network(torch.randn(1, 3, 64, 64), [truth], torch.Generator().manual_seed(0))
        assert bool(terms["stuff"] > 0) == has_stuff and all(term.isfinite() for term in terms.values())
        sum(terms.values()).backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in network.parameters())
        assert bool(network.classify.weight.grad.any()) == has_stuff


def test_class_ids_count_all_classes():
    torch.manual_seed(0)
    network = replace(SMALL, max_objects=400).build().eval()
    with torch.no_grad():
        network.detector.box_head.classify.bias[:] = torch.tensor([3.0, 2.9, 0.0])
        found = network(torch.randn(2, 3, 64, 64))
    assert found.semantic_logits.shape == (2, 3, 16, 16)
    assert set(found.class_ids[found.scores > 0].tolist()) == {1, 3}


@pytest.mark.parametrize(("name", "preset"), [("d2_panoptic_fpn_R_50_3x", "panoptic_fpn_r_50_3x")])
def test_the_published_files_fit(manifest, name, preset):
    with torch.device("meta"):
        network = panoptic_fpn.PRESETS[preset].build()
    renamed = panoptic_fpn.rename(manifest(name))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_rename_tells_what_is_no_panoptic_fpn(manifest):
    with pytest.raises(FormatError, match="hold no name that starts with 'sem_seg_head.'.* choose mask_rcnn"):
        panoptic_fpn.rename({"backbone.fpn_lateral2.bias": torch.zeros(1)})
    strangers = {"sem_seg_head.predictor.bias": torch.zeros(1), "sem_seg_head.p6.0.weight": torch.zeros(1)}
    with pytest.raises(FormatError, match=r"hold 'sem_seg_head.p6.0.weight', which no such network has"):
        panoptic_fpn.rename(strangers)


def test_weights_belong_to_presets():
    for weights in panoptic_fpn.WEIGHTS.values():
        assert weights.num_classes == panoptic_fpn.PRESETS[weights.preset].num_classes == 133
        assert not weights.is_permissive and weights.intake.std == (1, 1, 1)


@pytest.mark.parametrize(
    ("classes", "things"), [(3, ()), (3, (0, 1, 2)), (3, (1, 3)), (3, (1, 0)), (3, (-1, 0)), (3, (0, 0)), (1, (0,))]
)
def test_things_that_cannot_be_are_told(classes, things):
    with pytest.raises(SettingError, match=r"things is \[.*\] and num_classes \d; give the ids of the classes that are"):
        replace(SMALL, num_classes=classes, things=things)
    assert replace(SMALL, num_classes=3, things=(0, 2)).build().classify.out_channels == 2


@pytest.mark.parametrize("name", ["in_channels", "branch_width", "proposals"])
def test_counts_that_cannot_be_are_told(name):
    with pytest.raises(SettingError, match=f"{name} is 0; "):
        replace(SMALL, **{name: 0})


def test_learns_what_it_sees():
    """Bright squares are things; the rows above the middle are one stuff, those below another, which a network can see."""
    torch.manual_seed(0)
    few = {"proposals_in_training": 50, "sampled_regions": 32, "pyramid_width": 64, "anchor_sizes": (8, 16, 32)}
    network = replace(SMALL, num_classes=3, things=(2,), **few).build().train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)

    def drawn():
        left, top = torch.randint(4, 36, (2,), generator=generator).tolist()
        planes = torch.ones(1, 64, 64, dtype=torch.int32)
        planes[:, 32:] = 2
        planes[:, top : top + 20, left : left + 24] = 3
        boxes = torch.tensor([[0.0, 0, 64, 32], [0, 32, 64, 64], [left, top, left + 24, top + 20]])
        values = torch.tensor([0.0, -1.0, 0.0, 2.0])
        return torch.randn(3, 64, 64, generator=generator) * 0.1 + values[planes.long()], ObjectTruth(
            boxes, torch.arange(3), planes
        )

    for _ in range(40):
        images, truth = zip(*[drawn() for _ in range(2)], strict=True)
        loss = sum(network(torch.stack(images), truth, generator).values())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)  # as in training
        optimiser.step()
    image, truth = drawn()
    run = Run(
        engine=lambda images: answers(network.eval(), images),
        classes=Classes.of(["sky", "street", "car"], is_thing=[False, False, True]),
        divisors=network.divisors,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segwright.decoding.panoptic_merge.LEAST_SCORE", 0.3)  # forty steps make nobody sure
        found = decode_objects_and_stuff(run, View(image.numpy(), (64, 64), Grid((64, 64))))
    class_map = found.class_map()
    assert found.instance_ids[0] == 1 and found.class_ids.tolist()[-2:] == [0, 1]
    assert np.mean(class_map == truth.planes[0].numpy() - 1) > 0.9
