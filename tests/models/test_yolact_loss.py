"""What YOLACT learns from. Axes: B, N priors, K classes, Q, O objects, P planes, H, W, h, w."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou

from segwright.layers.object_truth import ObjectTruth
from segwright.models._yolact_loss import (
    PriorPredictions,
    crop_mask,
    match_priors,
    yolact_losses,
)

SETTINGS = {"masks_to_train": 100, "rescore": None, "generator": None}


def truth_of(*masks_and_classes, side=16):
    """The truth of an image, one mask (a slice of rows and one of columns) and class for each object; each in its plane."""
    planes = torch.zeros(max(len(masks_and_classes), 1), side, side, dtype=torch.int32)
    boxes, classes = [], []
    for number, (rows, columns, class_id) in enumerate(masks_and_classes):
        planes[number, rows, columns] = number + 1
        boxes.append([columns.start, rows.start, columns.stop, rows.stop])
        classes.append(class_id)
    return ObjectTruth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(classes, dtype=torch.int64), planes
    )


def random_truth(generator, *, objects, classes, side):
    """Boxes anywhere, that may lie over each other."""
    spans = []
    for _ in range(objects):
        y, x = torch.randint(0, side - 8, (2,), generator=generator).tolist()
        height, width = torch.randint(4, 9, (2,), generator=generator).tolist()
        class_id = int(torch.randint(0, classes, (1,), generator=generator))
        spans.append((slice(y, y + height), slice(x, x + width), class_id))
    return truth_of(*spans, side=side)


def random_priors(generator, count, side):
    low = torch.rand(count, 2, generator=generator) * side - 4
    return torch.cat([low, low + 3 + torch.rand(count, 2, generator=generator) * 8], dim=1)


def predictions(generator, priors, *, batch, classes, sides=(8, 8)):
    """Random ones that want gradients."""
    found = PriorPredictions(
        torch.randn(batch, len(priors), 4, generator=generator),
        torch.randn(batch, len(priors), classes + 1, generator=generator),
        torch.randn(batch, len(priors), 5, generator=generator).tanh(),
        torch.rand(batch, 5, *sides, generator=generator),
        priors,
    )
    return PriorPredictions(*(each.requires_grad_() for each in found[:4]), priors)


def matched_twin(priors, truth):
    """The largest overlap of all first, its object and its prior out of the race, until each object has one."""
    overlaps = box_iou(truth.boxes, priors)
    most, objects = overlaps.max(0)
    for _ in range(len(truth.boxes)):
        number, prior = divmod(int(overlaps.argmax()), len(priors))
        overlaps[number], overlaps[:, prior] = -1, -1
        most[prior], objects[prior] = 2, number
    classes = [
        int(truth.class_ids[number]) + 1 if share >= 0.5 else 0 if share < 0.4 else -1
        for share, number in zip(most.tolist(), objects.tolist(), strict=True)
    ]
    return classes, objects.tolist()


def losses_twin(found, semantic, truths):
    """Each prior, each mask and each class by itself, from whole masks."""
    positives, terms = 0, dict.fromkeys(("class", "box", "mask", "semantic"), torch.zeros(()))
    sides = found.prototypes.shape[2:]
    for image, truth in enumerate(truths):
        classes, objects = matched_twin(found.priors, truth)
        here = [n for n, k in enumerate(classes) if k > 0]
        positives += len(here)
        masks = [(truth.planes == number + 1).any(0).float() for number in range(len(truth.boxes))]
        small = [F.interpolate(mask[None, None], sides, mode="bilinear")[0, 0] > 0.5 for mask in masks]
        scale_y, scale_x = (small / large for small, large in zip(sides, truth.planes.shape[1:], strict=True))
        for n in here:
            x1, y1, x2, y2 = truth.boxes[objects[n]].tolist()
            left, top, right, bottom = found.priors[n].tolist()
            width, height = right - left, bottom - top
            wanted = [
                (x1 + x2 - left - right) / 2,
                (y1 + y2 - top - bottom) / 2,
                math.log((x2 - x1) / width),
                math.log((y2 - y1) / height),
            ]
            wanted = torch.tensor(wanted) / torch.tensor([0.1 * width, 0.1 * height, 0.2, 0.2])
            terms["box"] = terms["box"] + 1.5 * F.smooth_l1_loss(found.deltas[image, n], wanted, reduction="sum")
            probs = (found.coefficients[image, n, :, None, None] * found.prototypes[image]).sum(0).sigmoid()
            for y, x in product(range(sides[0]), range(sides[1])):
                if x1 * scale_x - 1 <= x < x2 * scale_x + 1 and y1 * scale_y - 1 <= y < y2 * scale_y + 1:
                    wrong = -(probs[y, x] if small[objects[n]][y, x] else 1 - probs[y, x]).log()
                    terms["mask"] = terms["mask"] + 6.125 * wrong / ((x2 - x1) * scale_x * (y2 - y1) * scale_y)
        wrong = F.cross_entropy(found.logits[image], torch.tensor(classes).clamp(min=0), reduction="none")
        background = sorted((wrong[n] for n, k in enumerate(classes) if k == 0), reverse=True)
        terms["class"] = terms["class"] + wrong[here].sum() + sum(background[: 3 * len(here)])
        for class_id in range(semantic.shape[1]):
            masks = [mask for mask, k in zip(small, truth.class_ids.tolist(), strict=True) if k == class_id]
            target = torch.stack([torch.zeros(sides, dtype=torch.bool), *masks]).any(0).float()
            wrong = F.binary_cross_entropy_with_logits(semantic[image, class_id], target)
            terms["semantic"] = terms["semantic"] + wrong / len(truths)
    return {name: term if name == "semantic" else term / positives for name, term in terms.items()}


def test_by_hand_which_priors_are_of_an_object():
    truth = truth_of((slice(0, 8), slice(0, 8), 2), (slice(12, 14), slice(12, 14), 0))
    priors = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 8, 3.5], [0, 0, 8, 3], [10, 10, 16, 16]])
    matched = match_priors(priors, truth)
    assert matched.classes.tolist() == [3, 3, -1, 0, 1]  # of 1, 1/2, 7/16 and 3/8; and the small one's best of 1/9
    assert matched.objects[[0, 1, 4]].tolist() == [0, 0, 1]


def test_by_hand_two_objects_with_one_best_prior_have_one_each():
    truth = truth_of((slice(0, 8), slice(0, 8), 0), (slice(0, 8), slice(0, 7), 1))
    priors = torch.tensor([[0.0, 0, 8, 8], [10.0, 10, 14, 14], [0.0, 0, 8, 4]])
    matched = match_priors(priors, truth)
    assert matched.classes.tolist() == [1, 0, 2] and matched.objects[[0, 2]].tolist() == [0, 1]
    assert match_priors(priors[:1], truth).classes.tolist() == [1]  # none is left for the second


def test_by_hand_priors_in_what_nobody_knows_are_not_background():
    truth = truth_of()
    truth.planes[0, :, :8] = -1
    priors = torch.tensor([[1.0, 1, 7, 7], [9.0, 9, 15, 15], [6.0, 6, 10, 10], [-50.0, 0, -46, 4]])
    assert match_priors(priors, truth).classes.tolist() == [-1, 0, 0, 0]  # wholly, not at all, half, and outside the image


def test_by_hand_a_box_in_cells_and_the_cell_around_it():
    inside = crop_mask(torch.tensor([[2.0, 1.0, 4.0, 2.5]]), (5, 7))[0]
    assert inside.any(0).tolist() == [False, True, True, True, True, False, False]
    assert inside.any(1).tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matching_equals_the_slow_twin(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = random_truth(generator, objects=12, classes=4, side=40)
    priors = random_priors(generator, 30, 40)
    matched = match_priors(priors, truth)
    classes, objects = matched_twin(priors, truth)
    assert matched.classes.tolist() == classes
    assert [n for n, k in zip(matched.objects.tolist(), classes, strict=True) if k > 0] == [
        n for n, k in zip(objects, classes, strict=True) if k > 0
    ]


@pytest.mark.parametrize("sides", [(8, 8), (20, 20), (7, 9)])
def test_losses_equal_the_slow_twin(sides):
    generator = torch.Generator().manual_seed(3)
    truths = [random_truth(generator, objects=count, classes=3, side=24) for count in (4, 1)]
    found = predictions(generator, random_priors(generator, 60, 24), batch=2, classes=3, sides=sides)
    semantic = torch.randn(2, 3, *sides, generator=generator)
    losses = yolact_losses(found, semantic, truths, **SETTINGS)
    wanted = losses_twin(found, semantic, truths)
    for name in ("class", "box", "mask", "semantic"):
        torch.testing.assert_close(losses[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_an_image_without_objects_learns_that_its_hardest_priors_are_background():
    generator = torch.Generator().manual_seed(4)
    found = predictions(generator, random_priors(generator, 20, 16), batch=2, classes=3)
    losses = yolact_losses(found, torch.zeros(2, 3, 4, 4), [truth_of(), truth_of()], **SETTINGS)
    wrong = found.logits.logsumexp(2) - found.logits[..., 0]
    torch.testing.assert_close(losses["class"], wrong.topk(3).values.sum())  # of each image 3, divided by 1
    assert losses["box"] == losses["mask"] == 0 and losses["semantic"].item() == pytest.approx(3 * math.log(2))
    sum(losses.values()).backward()
    assert found.logits.grad.any() and all(not each.grad.any() for each in (found.deltas, found.coefficients, found.prototypes))


def test_what_nobody_knows_teaches_nothing():
    generator = torch.Generator().manual_seed(5)
    truth = truth_of((slice(0, 8), slice(0, 8), 0))
    truth.planes[0, :, 8:] = -1
    priors = torch.tensor([[0.0, 0, 8, 8]] * 2)
    found = predictions(generator, priors, batch=1, classes=1, sides=(16, 16))
    semantic = torch.randn(1, 1, 16, 16, requires_grad=True)
    losses = yolact_losses(found, semantic, [truth], **SETTINGS)
    (losses["mask"] + losses["semantic"]).backward()
    for touched in (found.prototypes.grad[0].any(0), semantic.grad[0, 0] != 0):
        assert touched[:8, :8].all() and not touched[:, 8:].any()


def test_a_mask_of_one_pixel_counts_as_one_cell():
    generator = torch.Generator().manual_seed(6)
    found = predictions(generator, torch.tensor([[3.5, 3.5, 7.5, 7.5], [10.0, 10, 14, 14]]), batch=1, classes=1, sides=(4, 4))
    losses = yolact_losses(found, torch.zeros(1, 1, 4, 4), [truth_of((slice(5, 6), slice(5, 6), 0))], **SETTINGS)
    probs = (found.coefficients[0, 0, :, None, None] * found.prototypes[0]).sum(0).sigmoid()
    cells = probs[1:3, 1:3]  # those that begin from 0.25 on to before 2.5; none has half of its area
    torch.testing.assert_close(losses["mask"], -6.125 * (1 - cells).log().sum())


def test_masks_beyond_the_limit_are_drawn_from_the_generator_and_stand_for_the_others():
    truth = truth_of((slice(0, 16), slice(0, 16), 0))
    priors = torch.tensor([[0.0, 0, 16, 16]] * 12 + [[7.0, 7, 9, 9]])
    found = predictions(torch.Generator().manual_seed(7), priors, batch=1, classes=1)
    semantic = torch.zeros(1, 1, 4, 4)

    def mask_loss(seed, most):
        settings = SETTINGS | {"masks_to_train": most, "generator": torch.Generator().manual_seed(seed)}
        return yolact_losses(found, semantic, [truth], **settings)["mask"].item()

    every = mask_loss(0, 12)
    assert mask_loss(0, 4) == mask_loss(0, 4) != mask_loss(1, 4)
    assert sum(mask_loss(seed, 4) for seed in range(200)) / 200 == pytest.approx(every, rel=0.05)


def test_rescoring_learns_the_overlap_of_large_masks():
    class Rescore(torch.nn.Module):
        """Says the same of each mask, and remembers them."""

        def forward(self, masks):
            self.masks = masks
            return masks.new_tensor([[0.0, 0.25]]).expand(len(masks), 2)

    truth = truth_of((slice(0, 8), slice(0, 8), 1), (slice(12, 14), slice(12, 14), 1))  # 64 and 4 cells
    priors = torch.tensor([[0.0, 0, 8, 8], [12.0, 12, 14, 14], [7.0, 11, 9, 13]])
    found = predictions(torch.Generator().manual_seed(8), priors, batch=1, classes=2, sides=(16, 16))
    with torch.no_grad():
        found.coefficients[:] = 1.0
        found.prototypes[:] = -1.0
        found.prototypes[..., :4] = 1.0  # half of the large one, and further down
    rescore = Rescore()
    losses = yolact_losses(found, torch.zeros(1, 2, 4, 4), [truth], **(SETTINGS | {"rescore": rescore}))
    assert rescore.masks.shape == (1, 1, 16, 16) and not rescore.masks[..., 9:, :].any()  # cut at the box and a cell more
    overlap = 32 / (64 + 4)  # the row of cells below the box is said to be of it
    assert losses["mask_overlap"].item() == pytest.approx(25 * (overlap - 0.25) ** 2 / 2 / 2)  # two priors have an object
    none = yolact_losses(found, torch.zeros(1, 2, 4, 4), [truth_of()], **(SETTINGS | {"rescore": rescore}))
    assert none["mask_overlap"] == 0
