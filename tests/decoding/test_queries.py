"""Classes, objects and panoptic segments of queries against slow twins of the published rules, in tiles, and in agreement.

Axes: B images, Q queries, K classes, h, w sides of masks, H, W of an image.
"""

import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segwright.core import Classes, Grid, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.decoding import queries
from segwright.decoding.queries import (
    MOST_OBJECTS,
    decode_classes,
    decode_objects,
    decode_panoptic,
    queries_agree,
    query_probabilities,
)
from segwright.decoding.run import Run
from segwright.transforms.prepare import View

CLASSES = Classes.of(["car", "cat", "dog", "sky", "road", "grass"], is_thing=[True, True, True, False, False, False])
K, THINGS = len(CLASSES), 3
PADDED, SEEN = (96, 128), (90, 118)  # of the network's image with and without padding
LOGITS = {"sure": 8.0, "likely": 3.0}  # of a class above the others


def blobs(count: int, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Mask logits float32 (count, h, w) of noisy discs."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    middles, radii = rng.uniform(0, 1, (count, 2)) * shape, rng.uniform(0.1, 0.4, count) * shape[0]
    distance = np.stack([np.hypot(rows - y, columns - x) for y, x in middles])
    return ((radii[:, None, None] - distance) * 0.7 + rng.normal(0, 0.5, distance.shape)).astype(np.float32)


@pytest.fixture
def outputs():
    class_logits = np.random.default_rng(1).normal(0, 3, (1, 20, K + 1)).astype(np.float32)
    return class_logits, blobs(20, (24, 32), seed=2)[None]


def run_of(outputs, classes: Classes = CLASSES, **settings) -> Run:
    return Run(engine=lambda images: outputs, classes=classes, divisors=(32, 32), output="queries", **settings)


def view(source: tuple[int, int] = SEEN) -> View:
    return View(np.zeros((3, *SEEN), np.float32), SEEN, Grid(source))


def official_masks(outputs, source: tuple[int, int]) -> np.ndarray:
    """Mask logits (Q, H, W): brought to the padded image, cut to the seen one, and brought to the original."""
    masks = F.interpolate(torch.from_numpy(outputs[1]), size=PADDED, mode="bilinear")[..., : SEEN[0], : SEEN[1]]
    return F.interpolate(masks, size=source, mode="bilinear")[0].numpy()


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def softmax(class_logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(class_logits).softmax(-1).numpy()


def slow_classes(outputs, source) -> np.ndarray:
    probs, masks = softmax(outputs[0][0])[:, :-1], sigmoid(official_masks(outputs, source))
    return np.einsum("qk,qhw->khw", probs, masks).argmax(axis=0)


def slow_objects(outputs, source) -> list[tuple[float, int, np.ndarray]]:
    """Score, class and mask bool (H, W) of each object, the surest first."""
    probs, masks, found = softmax(outputs[0][0])[:, :THINGS], official_masks(outputs, source), []
    for place in np.argsort(-probs.ravel(), kind="stable")[:MOST_OBJECTS]:
        query, label = divmod(int(place), THINGS)
        mask = masks[query] > 0
        if mask.any():
            found.append((float(probs[query, label] * sigmoid(masks[query][mask]).mean()), label, mask))
    return sorted((each for each in found if each[0] >= queries.LEAST_SCORE), key=lambda each: -each[0])


def slow_panoptic(outputs, source, threshold: float) -> tuple[np.ndarray, list[int]]:
    """The segment map (H, W), i + 1 for segment i, and the class of each segment."""
    probs, masks = softmax(outputs[0][0]), sigmoid(official_masks(outputs, source))
    labels, scores = probs.argmax(axis=1), probs.max(axis=1)
    kept = [q for q in range(len(probs)) if labels[q] < K and scores[q] > threshold]
    winner = np.stack([scores[q] * masks[q] for q in kept]).argmax(axis=0)
    result, class_ids, number_of = np.zeros(source, int), [], {}
    for place, query in enumerate(kept):
        is_own, is_mask, label = winner == place, masks[query] >= 0.5, int(labels[query])
        if not (is_own & is_mask).any() or is_own.sum() / is_mask.sum() < 0.8:
            continue
        if label < THINGS or label not in number_of:
            class_ids.append(label)
            number_of[label] = len(class_ids)
        result[is_own & is_mask] = number_of[label]
    return result, class_ids


# At half and one and a half of the sides the published two steps of interpolation are nearly the one of here.
SIZES = [(SEEN, 1.0), ((45, 59), 0.99), ((135, 177), 0.99)]


@pytest.mark.parametrize(("source", "share"), SIZES)
def test_classes_are_those_of_the_published_sum(outputs, source, share):
    found = decode_classes(run_of(outputs), view(source))
    assert found.shape == source and found.classes == CLASSES and not found.instance_ids.any()
    assert (found.class_map() == slow_classes(outputs, source)).mean() >= share


@pytest.mark.parametrize(("source", "share"), SIZES)
def test_objects_are_the_published_ones_with_their_scores(outputs, source, share):
    found, slow = decode_objects(run_of(outputs), view(source)), slow_objects(outputs, source)
    assert len(found) == len(slow) > 20
    np.testing.assert_allclose(found.scores, [score for score, _, _ in slow], atol=1e-6 if share == 1 else 2e-3)
    assert found.classes.names == ("car", "cat", "dog") and found.instance_ids.tolist() == list(range(1, len(slow) + 1))
    masks = found.masks()
    for _, label, mask in slow:  # near scores may change places where interpolation differs
        same = [(masks[n] == mask).mean() for n in np.flatnonzero(found.class_ids == label)]
        assert max(same) >= share
    assert share < 1 or found.class_ids.tolist() == [label for _, label, _ in slow]


@pytest.mark.parametrize(("source", "share"), SIZES)
def test_panoptic_segments_are_the_published_ones(monkeypatch, source, share):
    monkeypatch.setattr(queries, "OBJECT_MASK_THRESHOLD", 0.4)
    lengths, segments = [], 0
    for seed in range(6):
        outputs = np.random.default_rng(seed).normal(0, 3, (1, 8, K + 1)).astype(np.float32), blobs(8, (24, 32), seed)[None]
        found, (slow, class_ids) = decode_panoptic(run_of(outputs), view(source)), slow_panoptic(outputs, source, 0.4)
        assert found.class_ids.tolist() == class_ids
        assert ((found.instance_ids > 0) == np.array(CLASSES.is_thing)[class_ids]).all()
        assert (found.planes[0] == slow).mean() >= share
        lengths.append(len(class_ids))
        segments += len(class_ids)
    assert segments > 10  # so that the rules were at work


def four_queries(*, second_class: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two things left and right of the middle of masks 4 x 8, and two parts of the sky below; a fifth query is none."""
    class_logits = np.zeros((1, 5, K + 1), np.float32)
    for query, label in enumerate([0, second_class, 3, 3, K]):
        class_logits[0, query, label] = LOGITS["sure"]
    masks = np.full((1, 5, 4, 8), -9, np.float32)
    masks[0, 0, :2, :4] = masks[0, 1, :2, 4:] = masks[0, 2, 2:, :4] = masks[0, 3, 2:, 4:] = 9
    masks[0, 4] = 9
    return class_logits, masks


def small_view(shape=(4, 8)) -> View:
    return View(np.zeros((3, *shape), np.float32), shape, Grid(shape))


def small_run(outputs, classes: Classes = CLASSES, **settings) -> Run:
    return Run(engine=lambda images: outputs, classes=classes, divisors=(4, 4), output="queries", **settings)


def test_stuff_of_one_class_is_one_segment_and_things_are_apart():
    found = decode_panoptic(small_run(four_queries()), small_view())
    assert found.class_ids.tolist() == [0, 0, 3] and found.instance_ids.tolist() == [1, 2, 0]
    assert found.planes[0].tolist() == [[1] * 4 + [2] * 4] * 2 + [[3] * 8] * 2
    assert found.scores == pytest.approx([np.exp(8) / (np.exp(8) + K)] * 3)


def test_the_three_answers_are_of_the_same_segments():
    run, seen = small_run(four_queries(second_class=1)), small_view()
    panoptic, objects, classes = decode_panoptic(run, seen), decode_objects(run, seen), decode_classes(run, seen)
    assert (classes.class_map() == panoptic.class_map()).all()
    sure = objects.scores >= 0.5
    assert (objects.masks()[sure] == panoptic.masks()[panoptic.instance_ids > 0]).all()
    assert objects.class_ids[sure].tolist() == [0, 1] and objects.classes.names == CLASSES.names[:3]


def test_a_segment_hidden_by_others_and_one_that_is_not_sure_are_none():
    class_logits, masks = four_queries()
    masks[0, 1] = masks[0, 0]  # now another thing where the first is: only one of them can win
    masks[0, 1, :, 4:] = -9
    class_logits[0, 0, 0], class_logits[0, 2, 3] = 9, LOGITS["likely"]
    found = decode_panoptic(small_run((class_logits, masks)), small_view())
    assert found.class_ids.tolist() == [0, 3]
    assert found.planes[0].tolist() == [[1] * 4 + [0] * 4] * 2 + [[0] * 4 + [2] * 4] * 2
    nothing = decode_panoptic(small_run((class_logits - class_logits, masks)), small_view())
    assert len(nothing) == 0 and not nothing.planes.any()


def test_objects_below_the_least_score_are_left_out():
    found = decode_objects(small_run(four_queries(), min_score=0.5), small_view())
    assert found.class_ids.tolist() == [0, 0] and (found.scores > 0.99).all()
    assert not len(decode_objects(small_run(four_queries(), min_score=1), small_view()))


def test_where_all_classes_are_things_the_rest_is_background():
    things = Classes.of(["car", "cat"], is_thing=[True, True])
    class_logits = np.zeros((1, 2, 3), np.float32)
    class_logits[0, 0, 1] = class_logits[0, 1, 2] = 9
    masks = np.full((1, 2, 4, 8), -9, np.float32)
    masks[0, :, :2, :3] = 9
    run = small_run((class_logits, masks), things)
    found = decode_classes(run, small_view())
    assert found.classes.names == ("background", "car", "cat")
    assert found.class_map().tolist() == [[2] * 3 + [0] * 5] * 2 + [[0] * 8] * 2
    probs = query_probabilities(run, small_view())
    assert probs.shape == (3, 4, 8) and (probs.argmax(axis=0) == found.class_map()).all()


def test_probabilities_are_shares_of_the_scores(outputs):
    probs = query_probabilities(run_of(outputs), view())
    np.testing.assert_allclose(probs.sum(axis=0), 1, atol=1e-5)
    assert (probs.argmax(axis=0) == slow_classes(outputs, SEEN)).mean() > 0.98


# Large images: a network that sees its own pixels, so that tiles show parts of one scene.

SCENE = np.zeros((160, 224), int)  # 0 sky, 1 road, 2 and more cars
SCENE[80:] = 1
BOXES = [(20, 50, 30, 60), (70, 110, 90, 140), (100, 130, 150, 200), (5, 15, 180, 200)]
for number, (top, bottom, left, right) in enumerate(BOXES):
    SCENE[top:bottom, left:right] = 2 + number
SCENE_CLASSES = Classes.of(["sky", "road", "car"], is_thing=[False, False, True])


def looking(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Queries for sky, road and the four cars, read from images whose first channel holds the scene."""
    seen = images[:, 0, 2::4, 2::4]
    is_there = np.stack([np.rint(seen) == k for k in range(2 + len(BOXES))], axis=1)
    class_logits = np.zeros((len(images), 2 + len(BOXES), 4), np.float32)
    for query in range(2 + len(BOXES)):
        class_logits[:, query, min(query, 2)] = LOGITS["sure"]
    class_logits[~is_there.any(axis=(2, 3)), :] = np.eye(4, dtype=np.float32)[3] * LOGITS["sure"]
    return class_logits, np.where(is_there, 9, -9).astype(np.float32)


def scene_run(**settings) -> Run:
    return Run(engine=looking, classes=SCENE_CLASSES, divisors=(4, 4), output="queries", **settings)


def scene_view() -> View:
    return View(np.repeat(SCENE[None].astype(np.float32), 3, axis=0), SCENE.shape, Grid(SCENE.shape))


@pytest.mark.parametrize("at_once", [1, 3])
def test_tiles_are_joined_to_one_answer(at_once):
    whole, tiles = scene_run(), scene_run(tile=(96, 96), at_once=at_once)
    one, many = (decode_panoptic(run, scene_view()) for run in (whole, tiles))
    assert sorted(many.class_ids) == sorted(one.class_ids) == [0, 1, 2, 2, 2, 2]
    assert sorted(many.instance_ids) == [0, 0, 1, 2, 3, 4]
    assert (many.class_map() == one.class_map()).mean() > 0.995
    for segment in range(len(one)):
        best = max(
            (one.mask(segment) & many.mask(k)).sum() / (one.mask(segment) | many.mask(k)).sum() for k in range(len(many))
        )
        assert best > 0.95
    one, many = (decode_objects(run, scene_view()) for run in (whole, tiles))
    assert len(one) == len(many) == len(BOXES)
    one, many = (decode_classes(run, scene_view()) for run in (whole, tiles))
    assert (many.class_map() == one.class_map()).mean() > 0.99
    assert (one.class_map() == np.minimum(SCENE, 2)).mean() > 0.97  # masks are coarser than pixels


def test_mirrors_leave_what_looks_the_same_as_it_is():
    plain, flipped = (decode_classes(scene_run(flip_axes=axes), scene_view()).class_map() for axes in ((), (-1, -2)))
    assert (plain == flipped).mean() > 0.97


def test_no_array_of_all_queries_at_full_size_exists():
    size, count = 512, 50
    class_logits = np.zeros((1, count, K + 1), np.float32)
    class_logits[0, np.arange(count), np.arange(count) % K] = LOGITS["sure"]
    run = Run(engine=lambda images: outputs, classes=CLASSES, divisors=(32, 32), output="queries")
    outputs = class_logits, blobs(count, (size // 4, size // 4), seed=3)[None]
    seen = View(np.zeros((3, size, size), np.float32), (size, size), Grid((size, size)))
    for decode in (decode_panoptic, decode_classes, decode_objects):
        decode(run, seen)
        tracemalloc.start()
        found = decode(run, seen)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.75 * 4 * count * size * size + found.planes.nbytes, decode


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ((np.zeros((1, 5, 7)),), r"arrays of \[\(1, 5, 7\)\].*class_logits and mask_logits.*choose the task"),
        ((np.zeros((1, 5, 7)), np.zeros((1, 4, 2, 2))), "one of queries gives class_logits"),
        ((np.zeros((1, 5, 9)), np.zeros((1, 5, 2, 2))), "9 classes with that of no segment, but there are names for 6.*num_cl"),
    ],
)
def test_what_is_no_answer_of_queries_is_refused(outputs, message):
    for decode in (decode_classes, decode_objects, decode_panoptic):
        with pytest.raises(ShapeError, match=message):
            decode(small_run(outputs), small_view())


def test_volumes_are_refused_with_what_to_do():
    volume = View(np.zeros((1, 4, 8, 8), np.float32), (4, 8, 8), Grid((4, 8, 8)))
    for decode in (decode_classes, decode_objects, decode_panoptic, query_probabilities):
        with pytest.raises(ShapeError, match="3 spatial axes.*give slices of a volume one by one"):
            decode(small_run(four_queries()), volume)


def test_mirrors_are_refused_where_queries_have_no_partners():
    run = small_run(four_queries(), flip_axes=(-1,))
    with pytest.raises(SettingError, match="objects of queries.*predict without flips.*--task semantic"):
        decode_objects(run, small_view())
    with pytest.raises(SettingError, match="segments of queries.*predict without flips"):
        decode_panoptic(run, small_view())
    assert isinstance(decode_classes(run, small_view()), Segmentation)  # as the remedy says


def test_engines_agree_with_themselves_and_not_with_others(outputs):
    assert queries_agree(outputs, outputs) == 1
    noise = np.random.default_rng(0).normal(0, 0.02, outputs[1].shape).astype(np.float32)
    assert queries_agree((outputs[0], outputs[1] + noise), outputs) > 0.99
    other = outputs[0].copy()
    other[0, :, [0, 1]] = other[0, :, [1, 0]]
    assert queries_agree((other, outputs[1]), outputs) < 0.9
    lost = outputs[1].copy()
    sure = int(softmax(outputs[0][0])[:, :-1].max(axis=1).argmax())
    lost[0, sure] = -9
    assert queries_agree((outputs[0], lost), outputs) < 0.97
    unsure = (np.zeros_like(outputs[0]), outputs[1])
    assert queries_agree(unsure, unsure) == 1
