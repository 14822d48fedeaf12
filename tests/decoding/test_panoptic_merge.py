"""Objects and stuff to one segmentation. Axes: C channels, N objects, S classes of stuff, H, W sides, h, w of a tile."""

import numpy as np
import pytest

from segwright.core import Classes, Grid, Segmentation
from segwright.core.errors import ShapeError
from segwright.decoding import panoptic_merge
from segwright.decoding.detections import decode_detections
from segwright.decoding.mask_runs import MaskRuns
from segwright.decoding.panoptic_merge import (
    decode_objects_alone,
    decode_objects_and_stuff,
    merged,
    objects_and_stuff_agree,
)
from segwright.decoding.run import Outputs, Run
from segwright.decoding.stitch import FoundObjects
from segwright.transforms.prepare import View

CLASSES = Classes.of(["sky", "car", "street", "person", "tree"], is_thing=[False, True, False, True, False])
STUFF = [0, 2, 4]  # labels 1, 2 and 3


def objects_of(masks, scores, class_ids) -> FoundObjects:
    """Objects of masks bool (N, H, W)."""
    runs = []
    for mask in masks:
        edges = np.diff(np.pad(mask.astype(int), ((0, 0), (1, 1))), axis=1)
        (rows, starts), (_, stops) = np.nonzero(edges == 1), np.nonzero(edges == -1)
        runs.append(np.stack([rows, starts, stops], axis=1).astype(np.int32))
    return FoundObjects(MaskRuns.of(runs), np.array(scores, np.float32), np.array(class_ids, np.int64))


def slowly(masks, class_ids, labels, least_area) -> tuple[np.ndarray, list[int]]:
    """The published rules, word by word: the map of segments (H, W), and their classes."""
    numbers, found = np.zeros(labels.shape, int), []
    for mask, k in zip(masks, class_ids, strict=True):
        if not mask.any() or (mask & (numbers > 0)).sum() / mask.sum() > 0.5:
            continue
        found.append(int(k))
        numbers[mask & (numbers == 0)] = len(found)
    is_free = numbers == 0
    for label in range(1, 1 + len(STUFF)):
        where = (labels == label) & is_free
        if where.any() and where.sum() >= least_area:
            found.append(STUFF[label - 1])
            numbers[where] = len(found)
    return numbers, found


def boxed(shape, *boxes) -> np.ndarray:
    """Masks bool (N, H, W) of boxes (top, left, bottom, right)."""
    masks = np.zeros((len(boxes), *shape), bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


# Merging, by hand


def test_the_surest_object_takes_the_pixels_that_two_share():
    masks = boxed((3, 8), (0, 0, 3, 5), (0, 3, 3, 8))
    found = merged(objects_of(masks, [0.9, 0.8], [1, 3]), np.full((3, 8), 2, np.uint8), CLASSES, least_area=0)
    assert found.planes.tolist() == [[[1, 1, 1, 1, 1, 2, 2, 2]] * 3]
    assert found.class_ids.tolist() == [1, 3] and found.instance_ids.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8]) and found.scores.dtype == np.float32


@pytest.mark.parametrize(("left", "is_kept"), [(4, True), (3, False)])
def test_an_object_is_left_out_if_others_have_more_than_half_of_it(left, is_kept):
    """8 wide, of which 4 are the other's, or 5; exactly half is allowed."""
    masks = boxed((2, 12), (0, 0, 2, 8), (0, left, 2, left + 8))
    found = merged(objects_of(masks, [0.9, 0.8], [1, 1]), np.zeros((2, 12), np.uint8), CLASSES, least_area=0)
    assert len(found) == 1 + is_kept
    assert (found.planes[0, :, 8:12] == 2).all() == is_kept and (found.planes[0, :, :8] == 1).all()


def test_what_an_object_left_out_covered_goes_to_stuff():
    masks = boxed((1, 6), (0, 0, 1, 4), (0, 1, 1, 5))
    found = merged(objects_of(masks, [0.9, 0.8], [1, 3]), np.array([[1, 1, 1, 1, 3, 0]], np.uint8), CLASSES, least_area=0)
    assert found.planes.tolist() == [[[1, 1, 1, 1, 2, 0]]]
    assert found.class_ids.tolist() == [1, 4] and found.instance_ids.tolist() == [1, 0] and found.scores[1] == 1


def test_stuff_follows_in_the_order_of_its_classes_and_things_without_objects_are_nothing():
    labels = np.array([[3, 3, 1], [0, 0, 1], [2, 2, 2]], np.uint8)
    found = merged(objects_of([], [], []), labels, CLASSES, least_area=0)
    assert found.class_ids.tolist() == [0, 2, 4] and found.instance_ids.tolist() == [0, 0, 0]
    assert found.class_map().tolist() == [[4, 4, 0], [-1, -1, 0], [2, 2, 2]]
    assert (found.planes >= 0).all()  # nothing, and not void, which is for pixels that nobody may judge


def test_little_stuff_is_left_out_by_what_is_visible_of_it():
    """The street has 6 pixels, of which a car hides 2."""
    labels = np.array([[1, 1, 1, 1], [2, 2, 2, 1], [2, 2, 2, 1]], np.uint8)
    objects = objects_of(boxed((3, 4), (1, 0, 2, 2)), [0.9], [1])
    for least_area, class_ids in ((4, [1, 0, 2]), (5, [1, 0]), (7, [1])):
        found = merged(objects, labels, CLASSES, least_area=least_area)
        assert found.class_ids.tolist() == class_ids
        assert (found.planes[0][labels == 2] > 0).sum() == (6 if 2 in class_ids else 2)


def test_nothing_at_all():
    found = merged(objects_of([], [], []), np.zeros((2, 3), np.uint8), CLASSES, least_area=0)
    assert len(found) == 0 and found.planes.tolist() == np.zeros((1, 2, 3)).tolist()


# Merging, by its slow twin and by laws


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks bool (N, H, W) that overlap in all ways, their classes, and labels (H, W)."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 24, (8, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 18, (8, 2))], axis=1)
    masks = boxed((32, 40), *boxes.tolist()) & (random.random((8, 32, 40)) < 0.9)
    labels = np.kron(random.integers(0, 4, (4, 5)), np.ones((8, 8), int)).astype(np.uint8)
    return masks, random.choice([1, 3], 8), labels


def test_equals_the_published_rules():
    lost = set()
    for seed in range(20):
        masks, class_ids, labels = scene(seed)
        numbers, wanted = slowly(masks, class_ids, labels, 150)
        found = merged(objects_of(masks, np.linspace(0.9, 0.5, 8), class_ids), labels, CLASSES, least_area=150)
        assert np.array_equal(found.planes[0], numbers) and found.class_ids.tolist() == wanted
        lost |= {8 - int((found.instance_ids > 0).sum())}
        assert found.areas().sum() == (found.planes > 0).sum() and (found.areas() > 0).all()
    assert max(lost) >= 3 and len(lost) > 2  # the rule about overlaps has decided


# From networks


def view_of(image: np.ndarray, source: tuple[int, int] | None = None) -> View:
    """An image (H, W) as a network sees it, of an original of another size."""
    return View(image[None].astype(np.float32), image.shape, Grid(source or image.shape))


def exactly(images: np.ndarray, scores: dict[int, float] | None = None, *, places: int = 20, stride: int = 4) -> Outputs:
    """What a perfect network says of tiles (B, 1, h, w) of ten times the number of an object, 0 for none, plus the label there.

    Labels are 0 for things and 1 ... S for stuff. Objects of odd numbers are cars, the others persons.
    """
    found = []
    for values in np.rint(images[:, 0]).astype(int):
        numbers, labels = values // 10, (values % 10)[stride // 2 :: stride, stride // 2 :: stride]
        there = [number for number in np.unique(numbers) if number]
        boxes, probs, class_ids = np.zeros((places, 4)), np.zeros((places, *numbers.shape)), np.zeros(places, int)
        score = np.zeros(places)
        for place, number in enumerate(there):
            rows, columns = np.nonzero(numbers == number)
            boxes[place] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            probs[place], score[place] = numbers == number, (scores or {}).get(number, 0.95 - number / 20)
            class_ids[place] = 1 if number % 2 else 3
        regions = np.tile([0, 0, *numbers.shape[::-1]], (places, 1))
        logits = 8.0 * (labels == np.arange(1 + len(STUFF))[:, None, None])
        parts = (boxes, score, class_ids, probs, regions, logits)
        found.append([part if part is class_ids else part.astype(np.float32) for part in parts])
    return tuple(np.stack(part) for part in zip(*found, strict=True))


def run_of(engine=exactly, **changes) -> Run:
    return Run(**({"engine": engine, "classes": CLASSES, "divisors": (8, 8)} | changes))


def street() -> np.ndarray:
    """A scene (160, 240): tree, sky and street; a long car across several tiles, two objects that touch, one on a border."""
    values = np.ones((160, 240), int)
    values[80:] = 2
    values[:40] = 3  # stripes, since logits round off corners
    for number, (top, left, bottom, right) in enumerate(
        [(64, 16, 96, 208), (104, 40, 136, 80), (104, 80, 136, 120), (140, 100, 160, 140)], start=1
    ):
        values[top:bottom, left:right] += 10 * number
    return values


def check_street(found: Segmentation) -> None:
    """See that each object is one segment of its own, and that all other pixels have their stuff."""
    numbers, labels = np.divmod(street(), 10)
    pairs = np.unique(np.stack([found.planes[0], np.where(numbers, 10 * numbers, labels)]).reshape(2, -1), axis=1)
    assert pairs.shape[1] == len(found) == 7 and pairs[0].tolist() == [1, 2, 3, 4, 5, 6, 7]  # a segment each, and no other
    assert np.array_equal(found.class_map(), np.where(numbers, np.where(numbers % 2, 1, 3), np.take([0, *STUFF], labels)))
    assert found.instance_ids.tolist() == [1, 2, 3, 4, 0, 0, 0]


@pytest.fixture
def all_stuff(monkeypatch):
    """However little of it there is, stuff is shown."""
    monkeypatch.setattr(panoptic_merge, "LEAST_SHARE", 0.0)


@pytest.mark.usefixtures("all_stuff")
@pytest.mark.parametrize("flip_axes", [(), (-1,), (-2, -1)])
@pytest.mark.parametrize("tile", [None, (64, 64), (96, 128), (160, 64)])
def test_exact_answers_give_the_scene_whatever_the_tiles(tile, flip_axes):
    check_street(decode_objects_and_stuff(run_of(tile=tile, flip_axes=flip_axes), view_of(street())))


@pytest.mark.usefixtures("all_stuff")
def test_tiles_share_batches():
    sizes = []

    def engine(images: np.ndarray) -> Outputs:
        sizes.append(len(images))
        return exactly(images)

    check_street(decode_objects_and_stuff(run_of(engine, tile=(64, 64), at_once=4, flip_axes=(-1,)), view_of(street())))
    assert max(sizes) == 4


@pytest.mark.usefixtures("all_stuff")
def test_an_engine_may_overwrite_its_answer():
    kept: dict[tuple, Outputs] = {}

    def engine(images: np.ndarray) -> Outputs:
        outputs = exactly(images)
        memory = kept.setdefault(tuple(part.shape for part in outputs), outputs)
        for place, part in zip(memory, outputs, strict=True):
            place[:] = part
        return memory

    for flip_axes in ((), (-1,)):
        check_street(decode_objects_and_stuff(run_of(engine, tile=(64, 64), flip_axes=flip_axes), view_of(street())))


@pytest.mark.usefixtures("all_stuff")
def test_the_result_lies_on_the_original_grid():
    found = decode_objects_and_stuff(run_of(tile=(64, 64)), view_of(street(), (320, 480)))
    same = decode_objects_and_stuff(run_of(), view_of(street()))
    assert found.shape == (320, 480) and found.areas().tolist() == (4 * same.areas()).tolist()
    assert np.array_equal(found.planes[0, ::2, ::2], same.planes[0])


def test_padding_is_no_part_of_the_result():
    """An image whose sides are no multiples of the divisors, with an object that the padding mirrors."""
    numbers = np.ones((42, 51), int)
    numbers[20:42, 30:51] += 10
    found = decode_objects_and_stuff(run_of(), view_of(numbers))
    assert found.shape == (42, 51) and found.areas().tolist() == [22 * 21, 42 * 51 - 22 * 21]


def test_objects_must_be_sure():
    numbers = np.ones((32, 32), int)
    numbers[:8, :8], numbers[:8, 16:24], numbers[16:24, :8] = 111, 131, 151
    scores = {11: 0.9, 13: 0.6, 15: 0.49}
    for min_score, wanted in ((0.0, [0.9, 0.6, 1]), (0.5, [0.9, 0.6, 1]), (0.7, [0.9, 1])):
        run = run_of(lambda images: exactly(images, scores), min_score=min_score)
        assert decode_objects_and_stuff(run, view_of(numbers)).scores.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("shape", "area", "is_shown"),
    [
        ((480, 640), 4096, True),
        ((480, 640), 4032, False),
        ((64, 80), 128, True),
        ((64, 80), 120, False),
    ],
)
def test_stuff_needs_4096_pixels_or_a_fortieth_of_a_small_image(shape, area, is_shown):
    numbers = np.ones(shape, int)
    width = 8 if shape[0] < 100 else 64
    numbers[: area // width, :width] = 3
    found = decode_objects_and_stuff(run_of(lambda images: exactly(images, stride=1)), view_of(numbers))
    assert (4 in found.class_ids) == is_shown


def test_objects_alone_overlap_and_have_all_scores():
    outputs = list(exactly(np.ones((1, 1, 32, 32))))
    outputs[0][0, :2], outputs[1][0, :2] = [[0, 0, 16, 16], [4, 0, 20, 16]], [0.9, 0.2]
    outputs[3] = np.zeros((1, 20, 0, 0), np.float32)  # boxes are filled
    found = decode_objects_alone(run_of(lambda images: tuple(outputs)), view_of(np.ones((32, 32))))
    assert found.scores.tolist() == pytest.approx([0.9, 0.2]) and found.areas().tolist() == [256, 256]
    alone = decode_detections(run_of(lambda images: tuple(outputs)[:-1]), view_of(np.ones((32, 32))))
    assert np.array_equal(found.planes, alone.planes)


# Agreement of engines


def test_what_agrees_and_what_does_not():
    values = street()[None, None]
    right = exactly(values)
    assert objects_and_stuff_agree(right, right, (160, 240)) == 1
    one_less = exactly(np.where(values // 10 == 4, values % 10, values))
    assert objects_and_stuff_agree(one_less, right, (160, 240)) < 0.9
    other_stuff = exactly(np.where(values == 3, 1, values))
    assert objects_and_stuff_agree(other_stuff, right, (160, 240)) == pytest.approx(1 - 40 / 160)


# By their messages


def test_other_networks_are_told():
    detections = run_of(lambda images: exactly(images)[:-1])
    for decode in (decode_objects_and_stuff, decode_objects_alone):
        with pytest.raises(ShapeError, match=r"gives arrays of .*, but one that finds objects and stuff gives boxes, scores"):
            decode(detections, view_of(np.ones((32, 32))))


def test_other_classes_are_told():
    other = Classes.of(["sky", "car", "person"], is_thing=[False, True, True])
    with pytest.raises(ShapeError, match="tells 3 classes of stuff apart, but 1 of the 3 classes are stuff; build it with"):
        decode_objects_and_stuff(run_of(classes=other), view_of(np.ones((32, 32))))


def test_volumes_are_told():
    view = View(np.zeros((1, 4, 8, 8), np.float32), (4, 8, 8), Grid((4, 8, 8)))
    with pytest.raises(ShapeError, match="the image has 3 spatial axes, the network sees 3 .*; objects and stuff are found in"):
        decode_objects_and_stuff(run_of(divisors=(1, 8, 8)), view)
