"""From what networks say of objects to segmentations. Axes: C channels, N objects, H, W sides of the image, h, w of a tile."""

from functools import partial

import large_image
import numpy as np
import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from segwright.core import Classes, Grid, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.decoding.detections import decode_detections, detections_agree
from segwright.decoding.run import Outputs, Run
from segwright.decoding.sliding_window import Axis
from segwright.transforms.prepare import View

TWO = Classes.of(["cell", "dust"], is_thing=[True, True])


@pytest.fixture(scope="module")
def scene():
    """Numbers of cells (600, 600)."""
    return large_image.draw(600)[1]


def view_of(image: np.ndarray, source: tuple[int, int] | None = None) -> View:
    """An image (H, W) as a network sees it, of an original of another size."""
    return View(image[None].astype(np.float32), image.shape, Grid(source or image.shape))


def answer(boxes, scores, class_ids=None, masks=None, regions=None, places: int = 10) -> Outputs:
    """Outputs for one image, with places that are left over; masks fill their boxes unless they are given."""
    count, boxes = len(scores), np.array(boxes, np.float32).reshape(-1, 4)
    masks = np.ones((count, 28, 28), np.float32) if masks is None else np.array(masks, np.float32)
    parts = (boxes, np.array(scores, np.float32), np.zeros(count, int) if class_ids is None else np.array(class_ids), masks)
    padded = [np.zeros((1, places, *part.shape[1:]), part.dtype) for part in (*parts, boxes)]
    for whole, part in zip(padded, (*parts, boxes if regions is None else np.array(regions, np.float32)), strict=True):
        whole[0, :count] = part
    return tuple(padded)


def exactly(images: np.ndarray, scores: dict[int, float] | None = None, places: int = 40) -> Outputs:
    """What a perfect network says of tiles (B, 1, h, w) of numbers: masks of the whole tile, a value for each pixel."""
    found = []
    for numbers in np.rint(images[:, 0]).astype(int):
        there = [number for number in np.unique(numbers) if number > 0]
        boxes = [
            (*np.argwhere(numbers == n).min(axis=0)[::-1], *(np.argwhere(numbers == n).max(axis=0)[::-1] + 1)) for n in there
        ]
        masks = np.array([numbers == n for n in there]).reshape(-1, *numbers.shape)
        regions = np.tile([0, 0, *numbers.shape[::-1]], (len(there), 1))
        found.append(answer(boxes, [(scores or {}).get(n, 0.9) for n in there], [n % 2 for n in there], masks, regions, places))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def run_of(engine, **changes) -> Run:
    return Run(**({"engine": engine, "classes": TWO, "divisors": (8, 8)} | changes))


def as_numbers(found: Segmentation) -> np.ndarray:
    """The plane of objects that do not overlap."""
    assert len(found.planes) == 1
    return found.planes[0]


def is_same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two maps of numbers (H, W) mark the same objects, by whatever numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return all(len(np.unique(pairs[axis])) == pairs.shape[1] for axis in (0, 1)) and [0, 0] in pairs.T.tolist()


# By hand


def test_objects_keep_their_order_and_overlap():
    outputs = answer([[1, 1, 5, 5], [3, 3, 8, 8], [0, 0, 0.3, 0.3], [6, 0, 8, 2]], [0.9, 0.8, 0.7, 0.2], [0, 1, 1, 1])
    found = decode_detections(run_of(lambda images: outputs), view_of(np.zeros((8, 8))))
    assert found.planes.shape == (2, 8, 8) and found.planes.dtype == np.int32
    assert found.class_ids.tolist() == [0, 1, 1] and found.instance_ids.tolist() == [1, 2, 3]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.2])
    assert found.boxes_xyxy().tolist() == [[1, 1, 5, 5], [3, 3, 8, 8], [6, 0, 8, 2]]


def test_no_objects():
    found = decode_detections(run_of(lambda images: answer([], [])), view_of(np.zeros((8, 8))))
    assert len(found) == 0 and found.planes.tolist() == np.zeros((1, 8, 8)).tolist()


def test_masks_are_drawn_on_the_original_grid():
    """A triangle: at three times the size its edge is as fine as the original's pixels."""
    outputs = answer([[0, 0, 16, 16]], [0.9], masks=np.tri(16, dtype=np.float32)[None])
    found = decode_detections(run_of(lambda images: outputs), view_of(np.zeros((16, 16)), (48, 48))).mask(0)
    steps = np.flatnonzero(np.diff(found.sum(axis=1)))
    assert found[-1].all() and found[:, 0].all() and len(steps) > 30  # and not 15 steps of three pixels


def test_padding_holds_no_objects():
    outputs = answer([[0, 0, 16, 16], [12, 12, 16, 16]], [0.9, 0.8], masks=np.zeros((2, 0, 0)))
    found = decode_detections(run_of(lambda images: outputs), view_of(np.zeros((10, 11))))
    assert found.areas().tolist() == [110]


def test_objects_below_the_least_score_are_left_out():
    outputs = answer([[0, 0, 4, 4], [4, 4, 8, 8]], [0.9, 0.4])
    found = decode_detections(run_of(lambda images: outputs, min_score=0.5), view_of(np.zeros((8, 8))))
    assert found.scores.tolist() == pytest.approx([0.9]) and (found.planes > 1).sum() == 0


# Tiles


def test_each_cell_comes_out_whole_and_once(scene):
    """An oracle that errs by some percent, whose masks end at the border of their tile."""
    oracle = large_image.Oracle(np.bincount(scene.ravel()), places=60)
    run = run_of(oracle, divisors=(32, 32), tile=(192, 192), min_score=0.5)
    found = decode_detections(run, view_of(scene))
    tile, padded = run.sizes(scene.shape)
    cut = large_image.cut_cells(scene, [Axis.over(*sides).starts for sides in zip(padded, tile, strict=True)], tile)
    count, is_alike = large_image.whole_cells(found.planes, scene)
    assert oracle.calls == 16 and len(cut) > 60
    assert (count[1:] == 1).all() and is_alike[1:].all() and len(found) == scene.max()


@pytest.mark.parametrize("tile", [(64, 64), (96, 128), (160, 64), None])
def test_exact_answers_give_the_scene_whatever_the_tiles(tile):
    """Objects larger than the overlap and than a tile too; each is one piece."""
    numbers = np.zeros((200, 200), int)
    for number, (top, left, height, width) in enumerate(
        [(5, 5, 150, 40), (10, 60, 30, 130), (60, 60, 20, 20), (60, 90, 9, 100), (100, 70, 95, 110), (170, 10, 3, 30)], start=1
    ):
        numbers[top : top + height, left : left + width] = number
    found = decode_detections(run_of(exactly, tile=tile), view_of(numbers))
    assert len(found) == 6 and is_same_partition(as_numbers(found), numbers)
    assert found.class_ids.tolist() == [numbers[as_numbers(found) == n][0] % 2 for n in range(1, 7)]


def test_tiles_on_another_grid():
    numbers = np.zeros((120, 150), int)
    numbers[10:50, 10:140], numbers[60:75, 40:60] = 1, 2
    found = decode_detections(run_of(exactly, tile=(64, 64)), view_of(numbers, (240, 300)))
    assert len(found) == 2 and is_same_partition(as_numbers(found)[1::2, 1::2], numbers)
    assert sorted(found.boxes_xyxy().tolist()) == [[20, 20, 280, 100], [80, 120, 120, 150]]


def test_tiles_share_batches():
    sizes = []

    def engine(images: np.ndarray) -> Outputs:
        sizes.append(len(images))
        return exactly(images)

    numbers = np.kron(np.arange(1, 26).reshape(5, 5), np.ones((40, 40), int))
    one, other = (
        decode_detections(run_of(engine, tile=(64, 64), at_once=n, flip_axes=(-1,)), view_of(numbers)) for n in (1, 8)
    )
    assert np.array_equal(one.planes, other.planes) and len(one) == 25
    assert max(sizes) == 8 and np.array_equal(sizes[:2], [1, 1])


# Mirror images


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_mirror_images_of_exact_answers_change_nothing(tile):
    numbers = np.zeros((90, 100), int)
    numbers[3:40, 8:70], numbers[50:90, 60:100], numbers[45:49, 5:9] = 1, 2, 3
    plain, mean = (decode_detections(run_of(exactly, tile=tile, flip_axes=axes), view_of(numbers)) for axes in ((), (-2, -1)))
    assert is_same_partition(as_numbers(mean), numbers) and np.array_equal(plain.planes, mean.planes)
    assert mean.scores.tolist() == pytest.approx(plain.scores.tolist())


def test_scores_are_the_mean_over_the_mirror_images():
    """The network finds the object 2 on the left half alone."""

    def engine(images: np.ndarray) -> Outputs:
        return exactly(np.where((images == 2) & (np.arange(64) > 32), 0, images))

    numbers = np.zeros((64, 64), int)
    numbers[5:20, 5:20], numbers[40:60, 5:25] = 1, 2
    found = decode_detections(run_of(engine, flip_axes=(-1,)), view_of(numbers))
    assert found.scores.tolist() == pytest.approx([0.9, 0.45]) and found.areas().tolist() == [225, 400]
    found = decode_detections(run_of(engine, flip_axes=(-1,), min_score=0.5), view_of(numbers))
    assert found.scores.tolist() == pytest.approx([0.9])


# Against torchvision


def test_final_masks_are_those_of_torchvision():
    random = np.random.default_rng(0)
    low = random.uniform(0, 60, (12, 2))
    boxes = np.concatenate([low, low + random.uniform(4, 36, (12, 2))], axis=1).clip(0, 96).astype(np.float32)
    coarse = torch.from_numpy(random.standard_normal((1, 12, 6, 6), np.float32))
    masks = torch.nn.functional.interpolate(4 * coarse, size=(28, 28), mode="bicubic").sigmoid()[0]
    transform = GeneralizedRCNNTransform(96, 96, [0.0], [1.0]).eval()
    raw = [{"boxes": torch.from_numpy(boxes), "masks": masks[:, None]}]
    [expected] = transform.postprocess(raw, [(96, 96)], [(131, 117)])
    outputs = answer(boxes, np.linspace(0.9, 0.3, 12), masks=masks.numpy(), places=12)
    found = decode_detections(run_of(lambda images: outputs), view_of(np.zeros((96, 96)), (131, 117)), whole_pixels=True)
    probs = expected["masks"][:, 0].numpy()
    is_clear = abs(probs - 0.5) > 1e-5
    assert np.array_equal(found.masks()[is_clear], probs[is_clear] >= 0.5)


# Agreement of engines


def sure() -> dict:
    """Objects of one image 100 x 100."""
    random = np.random.default_rng(1)
    coarse = torch.from_numpy(random.standard_normal((1, 4, 4, 4), np.float32))
    masks = torch.nn.functional.interpolate(2 * coarse + 2, size=(28, 28), mode="bilinear").sigmoid()[0].numpy()
    boxes = np.array([[5, 5, 45, 40], [50, 8, 90, 60], [10, 60, 30, 90], [60, 70, 66, 76]], np.float32)
    return {"boxes": boxes, "scores": [0.95, 0.8, 0.51, 0.3], "class_ids": [0, 1, 1, 0], "masks": masks}


def agreement(**changes) -> float:
    return detections_agree(answer(**(sure() | changes)), answer(**sure()), (100, 100))


def test_the_same_agrees():
    assert agreement() == 1
    assert detections_agree(answer([], []), answer([], []), (100, 100)) == 1


def test_what_bfloat16_changes_agrees():
    """Scores by some hundredths, boxes by a part of a percent, logits of masks by as much."""
    random, base = np.random.default_rng(2), sure()
    for _ in range(5):
        logits = np.log(base["masks"] / (1 - base["masks"]))
        masks = 1 / (1 + np.exp(-logits * (1 + 0.01 * random.standard_normal(logits.shape))))
        boxes = base["boxes"] + 0.005 * np.ptp(base["boxes"], axis=1)[:, None] * random.standard_normal((4, 4))
        scores = np.array(base["scores"]) + 0.02 * random.uniform(-1, 1, 4)
        assert agreement(boxes=boxes, scores=scores, masks=masks) >= 0.999


def test_an_object_that_is_lost_does_not_agree_however_small():
    small, tiny = [[5, 5, 95, 90], [96, 96, 98, 98]], np.ones((2, 28, 28))
    both, one = answer(small, [0.9, 0.9], masks=tiny), answer(small[:1], [0.9], masks=tiny[:1])
    assert detections_agree(both, both, (100, 100)) == 1
    assert detections_agree(one, both, (100, 100)) < 0.7 and detections_agree(both, one, (100, 100)) < 0.7


@pytest.mark.parametrize(
    "changes",
    [
        {"class_ids": [0, 0, 1, 0]},
        {"scores": [0.95, 0.3, 0.51, 0.3]},
        {"boxes": sure()["boxes"] + 4},
        {"boxes": sure()["boxes"][[1, 0, 2, 3]]},
        {"masks": 1 - sure()["masks"]},
        {"masks": sure()["masks"] ** 3},
    ],
)
def test_what_is_wrong_does_not_agree(changes):
    assert agreement(**changes) < 0.99


def test_one_image_of_a_batch_that_is_wrong_counts():
    right, wrong = answer(**sure()), answer(**(sure() | {"class_ids": [1, 1, 1, 1]}))
    batch, other = (tuple(np.concatenate(part) for part in zip(right, last, strict=True)) for last in (right, wrong))
    assert detections_agree(batch, batch, (100, 100)) == 1 > 0.9 > detections_agree(other, batch, (100, 100))


def test_without_sure_objects_the_highest_scores_are_compared():
    unsure = partial(answer, [[5, 5, 45, 40]])
    assert detections_agree(unsure([0.32]), unsure([0.3]), (100, 100)) == 1
    assert detections_agree(unsure([0.1]), unsure([0.4]), (100, 100)) == pytest.approx(0.7)


def test_an_object_at_the_limit_agrees_whether_it_is_a_little_above_or_below():
    assert agreement(scores=[0.95, 0.8, 0.49, 0.3]) == agreement(scores=[0.95, 0.8, 0.53, 0.3]) == 1


# By their messages


def test_volumes_are_told():
    view = View(np.zeros((1, 4, 8, 8), np.float32), (4, 8, 8), Grid((4, 8, 8)))
    with pytest.raises(
        ShapeError, match="the image has 3 spatial axes, the network sees 3 .*; objects are found in images with"
    ):
        decode_detections(run_of(exactly, divisors=(1, 8, 8)), view)


def test_scores_that_cannot_be_are_told():
    with pytest.raises(SettingError, match="min_score is 50; scores go from 0 to 1: give 0.5"):
        run_of(exactly, min_score=50)
