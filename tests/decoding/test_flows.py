"""Flow fields to objects. Axes: F maps, N objects, H, W."""

import tracemalloc

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from segwright.core import Classes, Grid, Segmentation
from segwright.core.errors import ShapeError
from segwright.decoding import flows, upsample_argmax
from segwright.decoding.flows import decode_flows, flows_agree
from segwright.decoding.run import Run
from segwright.layers.flow_targets import flow_targets
from segwright.transforms.prepare import View

ONE, TWO = Classes.of(["cell"], is_thing=[True]), Classes.of(["round", "long"], is_thing=[True] * 2)
SURE = 9.0  # logit


def maps_of(objects: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """The maps float32 (F, H, W) of a network that knows the objects of a map (H, W), and their classes (N,) of two."""
    is_object = objects > 0
    maps = [5 * flow_targets(objects), np.where(is_object, SURE, -SURE)[None]]
    if classes is not None:
        kinds = np.concatenate([[0], classes])[objects]
        maps.append(SURE * np.stack([kinds == 0, kinds == 1]))
    return np.concatenate(maps).astype(np.float32)


def decoded(
    maps: np.ndarray, classes: Classes = ONE, *, tile=None, shape=None, stride: int = 1, seen: list | None = None, **run
) -> Segmentation:
    """The objects of an image whose maps (F, h, w) a network knows; its channels are the rows and columns of its pixels."""
    h, w = maps.shape[1:]
    image = np.indices((stride * h, stride * w)).astype(np.float32)

    def engine(images: np.ndarray):
        places = images[:, :, ::stride, ::stride].astype(int) // stride
        if seen is not None:
            seen.append(images.shape)
        answer = maps[:, places[:, 0], places[:, 1]].swapaxes(0, 1).copy()  # (B, F, h, w)
        for axis in (0, 1):  # in a mirror image all ways along its axis turn round
            steps = np.diff(places[:, axis], axis=1 + axis)
            answer[:, axis][steps.min(axis=(1, 2), initial=0) < 0] *= -1
        return (answer,)

    shape = shape or image.shape[1:]
    view = View(image, image.shape[1:], Grid(shape))
    return decode_flows(Run(engine=engine, classes=classes, divisors=(stride, stride), tile=tile, **run), view)


def disks(side: int, radius: float, step: int) -> np.ndarray:
    """Disks on a grid, numbered row by row."""
    rows, columns = np.indices((side, side))
    number = 1 + rows // step * (side // step) + columns // step
    inside = np.hypot(rows % step - step / 2 + 0.5, columns % step - step / 2 + 0.5) <= radius
    return np.where(inside, number, 0).astype(np.int32)


def blobs(generator: np.random.Generator, side: int, count: int) -> np.ndarray:
    """Pixels within 7 of the nearest of some seeds, which lie 6 apart at least: objects that touch."""
    seeds: list[np.ndarray] = []
    while len(seeds) < count:
        seed = generator.random(2) * side
        if all(np.hypot(*(seed - other)) >= 6 for other in seeds):
            seeds.append(seed)
    far = np.linalg.norm(np.indices((side, side))[..., None] + 0.5 - np.array(seeds).T[:, None, None], axis=0)
    return np.where(far.min(axis=2) <= 7, far.argmin(axis=2) + 1, 0).astype(np.int32)


def renumbered(objects: np.ndarray) -> np.ndarray:
    """The same objects, numbered by their first pixels."""
    numbers, first, place = np.unique(objects, return_index=True, return_inverse=True)
    order = np.argsort(first[numbers > 0])
    new = np.zeros(len(numbers), np.int32)
    new[np.flatnonzero(numbers > 0)[order]] = np.arange(1, 1 + len(order))
    return new[place].reshape(objects.shape)


# By hand


def test_objects_that_touch_come_out_as_they_went_in():
    objects = np.array([[1] * 5 + [2] * 5] * 5, np.int32)
    found = decoded(maps_of(objects))
    assert found.planes[0].tolist() == objects.tolist()
    assert found.class_ids.tolist() == [0, 0] and found.instance_ids.tolist() == [1, 2]
    assert found.planes.dtype == np.int32 and found.scores.dtype == np.float32


def test_nothing_is_found_where_nothing_is():
    found = decoded(maps_of(np.zeros((6, 7), np.int32)))
    assert len(found) == 0 and not found.planes.any() and found.planes.shape == (1, 6, 7)
    assert len(decoded(maps_of(np.zeros((6, 7), np.int32), np.zeros(0, int)), TWO)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 4)])
def test_an_object_of_one_pixel(shape):
    objects = np.zeros(shape, np.int32)
    objects[-1, -1] = 1
    assert decoded(maps_of(objects)).planes[0].tolist() == objects.tolist()


def test_the_score_is_the_root_of_the_probability_times_the_length_of_the_flows():
    objects = np.array([[1, 1, 1]], np.int32)
    maps = maps_of(objects)
    assert decoded(maps).scores == pytest.approx([(2 / 3) ** 0.5], abs=0.01)  # the middle goes nowhere
    maps[2] = np.log(3)  # 0.75
    maps[1] *= 0.5
    assert decoded(maps).scores == pytest.approx([(0.75 * 1 / 3) ** 0.5], abs=0.01)
    maps[1] *= 4  # longer than a step is as good as a step
    assert decoded(maps).scores == pytest.approx([(0.75 * 2 / 3) ** 0.5], abs=0.01)


def test_objects_below_a_score_are_left_out_and_the_others_numbered_anew():
    objects = np.array([[1, 1, 1, 0, 0, 2, 2, 2, 0, 0, 3, 3, 3]], np.int32)
    maps = maps_of(objects, np.array([0, 0, 1]))
    maps[2, 0, :3] = 0.1
    everything, likely = decoded(maps, TWO), decoded(maps, TWO, min_score=0.7)
    assert len(everything) == 3
    assert likely.planes[0].tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 2, 2, 2]]
    assert likely.class_ids.tolist() == [0, 1] and likely.instance_ids.tolist() == [1, 2]
    assert likely.scores.tolist() == everything.scores[1:].tolist()
    assert len(decoded(maps, TWO, min_score=1.0)) == 0


def test_half_a_probability_is_an_object_and_less_is_none():
    maps = maps_of(np.ones((1, 3), np.int32))
    maps[2] = [[0.0, 1e-6, -1e-6]]
    assert decoded(maps).planes[0].tolist() == [[1, 1, 0]]


def test_an_object_has_the_class_of_most_of_its_pixels():
    maps = maps_of(np.array([[1, 1, 1, 1, 0, 0, 2, 2]], np.int32), np.array([0, 1]))
    maps[3:, 0, 0] = [0, SURE]  # one of four pixels thinks otherwise
    found = decoded(maps, TWO)
    assert found.class_ids.tolist() == [0, 1]
    sure = decoded(maps_of(np.array([[1, 1, 1, 1, 0, 0, 2, 2]], np.int32)))
    assert (found.scores / sure.scores).tolist() == pytest.approx([0.75, 1])


def test_ends_that_lie_close_together_are_one_object_and_others_are_two():
    maps = np.zeros((3, 1, 9), np.float32)  # no flows: each pixel stays
    maps[2] = [[SURE, -SURE, SURE, -SURE, -SURE, SURE, SURE, -SURE, -SURE]]
    assert decoded(maps).planes[0].tolist() == [[1, 0, 1, 0, 0, 2, 2, 0, 0]]


def test_a_fragment_joins_the_larger_object_that_it_touches_and_one_alone_stays():
    objects = np.zeros((12, 12), np.int32)
    objects[1:5, 1:6], objects[8, 8] = 1, 2
    maps = maps_of(objects)
    maps[:2, 1, 1:4] = 0  # pixels that go nowhere, far enough from the middle to be another object
    maps[:2, 4, 5] = 0
    assert decoded(maps).planes[0].tolist() == objects.tolist()
    maps[:2] = 0  # the larger one is one that stays, as its ends touch
    assert decoded(maps).planes[0].tolist() == objects.tolist()


def test_a_fragment_between_two_objects_is_shared_layer_by_layer():
    objects = np.array([[1] * 16 + [2] * 3 + [3] * 16], np.int32)
    flows.absorb_fragments(objects, np.array([16, 3, 16]))
    assert objects.tolist() == [[1] * 18 + [3] * 17]  # of two at once, that to the left
    small = np.array([[1] * 14 + [2] * 3], np.int32)
    flows.absorb_fragments(small, np.array([14, 3]))
    assert small.tolist() == [[1] * 14 + [2] * 3]  # none is larger


def test_flows_that_lead_out_of_the_image_end_at_its_border():
    maps = np.zeros((3, 3, 8), np.float32)
    maps[1], maps[2] = -5, SURE
    found = decoded(maps)
    assert len(found) == 1 and (found.planes == 1).all()


def test_flows_in_a_circle_end_after_a_while():
    rows, columns = np.indices((9, 9)) - 4.0
    maps = np.stack([5 * columns, -5 * rows, np.full((9, 9), SURE)]).astype(np.float32) / 4
    assert decoded(maps).planes.min() == 1


# By a slow twin


@pytest.mark.parametrize("seed", range(3))
def test_pixels_end_where_plain_steps_lead(seed):
    objects = blobs(np.random.default_rng(seed), 40, 9)
    maps = maps_of(objects)
    field = np.rint(maps[:2] * 20) / 100  # as it is kept
    for place in np.argwhere(objects)[::7]:
        at = place.astype(float)
        for _ in range(60):
            before = at
            at = np.clip(at + map_coordinates(field[0], at[:, None], order=1) * [1, 0]
                         + map_coordinates(field[1], at[:, None], order=1) * [0, 1], 0, 39)  # fmt: skip
        ours = flows.end_of_flow(np.rint(maps[:2] * 20).astype(np.int8), np.float32(place[0]), np.float32(place[1]))
        assert np.abs(np.array(ours) - (at + before) / 2).max() < 0.5, place


def test_bytes_are_rounded_to_the_nearest():
    maps = np.random.default_rng(0).normal(0, 4, (3, 20, 30)).astype(np.float32)
    kept, probs = np.empty((2, 20, 30), np.int8), np.empty((20, 30), np.uint8)
    flows.keep_bytes(maps, kept, probs)
    np.testing.assert_allclose(kept, np.clip(maps[:2] * 20, -127, 127), atol=0.501)
    np.testing.assert_allclose(probs, 255 / (1 + np.exp(-maps[2])), atol=0.501)
    assert ((probs >= 128) == (maps[2] >= 0)).all()


# By a law


@pytest.mark.parametrize("seed", range(4))
def test_true_flows_give_the_true_objects_back(seed):
    objects = blobs(np.random.default_rng(seed), 64, 25)
    found = decoded(maps_of(objects))
    assert (found.planes[0] == renumbered(objects)).mean() > 0.998


def test_the_numbers_of_objects_follow_their_first_pixels():
    objects = renumbered(disks(60, 6.5, 15))
    assert decoded(maps_of(objects[:, ::-1])).planes[0].tolist() == renumbered(objects[:, ::-1]).tolist()


@pytest.mark.parametrize("tile", [(32, 32), (48, 64), (40, 96)])
def test_an_object_that_seams_cut_comes_out_once(tile):
    objects = renumbered(disks(96, 7.0, 16))
    seen: list = []
    found = decoded(maps_of(objects), tile=tile, seen=seen)
    assert len(seen) > 2 and all(h <= tile[0] and w <= tile[1] for _, _, h, w in seen)
    assert found.planes[0].tolist() == objects.tolist()


def test_seams_are_blended_where_tiles_know_nothing_at_their_borders():
    objects = renumbered(disks(96, 7.0, 16))
    maps = maps_of(objects)

    def engine(images: np.ndarray):
        rows, columns = images[:, 0].astype(int), images[:, 1].astype(int)
        answer = maps[:, rows, columns].swapaxes(0, 1).copy()
        for edge in (0, -1):
            answer[0, :, edge] *= rows[0, edge, 0] in (0, 95)
            answer[0, :, :, edge] *= columns[0, 0, edge] in (0, 95)
        return (answer,)

    image = np.indices((96, 96)).astype(np.float32)
    run = Run(engine=engine, classes=ONE, divisors=(1, 1), tile=(48, 48))
    found = decode_flows(run, View(image, (96, 96), Grid((96, 96))))
    assert found.planes[0].tolist() == objects.tolist()


def test_mirror_images_turn_flows_round():
    objects = renumbered(disks(32, 7.0, 16))
    plain = decoded(maps_of(objects))
    for axes in ((-1,), (-2,), (-2, -1)):
        found = decoded(maps_of(objects), flip_axes=axes)
        assert found.planes[0].tolist() == plain.planes[0].tolist()
        np.testing.assert_allclose(found.scores, plain.scores, atol=1e-6)  # the flows are averaged, and none is lost


@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_objects_come_out_on_the_original_grid(tile):
    """The network sees half of the size, and its maps are half of that."""
    objects = renumbered(disks(32, 7.0, 16))
    found = decoded(maps_of(objects), stride=2, shape=(128, 128), tile=tile)
    wanted = objects.repeat(4, axis=0).repeat(4, axis=1)
    for index in range(len(found)):
        ours, theirs = found.planes[0] == index + 1, wanted == index + 1
        assert (ours & theirs).sum() > 0.95 * (ours | theirs).sum()
    assert len(found) == 4


def test_many_rows_are_followed_in_threads(monkeypatch):
    objects = renumbered(disks(96, 7.0, 16))
    plain = decoded(maps_of(objects))
    monkeypatch.setattr(upsample_argmax, "BAND_PIXELS", 96)
    monkeypatch.setattr(upsample_argmax.numba.config, "NUMBA_NUM_THREADS", 3)
    assert decoded(maps_of(objects)).planes.tolist() == plain.planes.tolist()


def test_of_each_pixel_bytes_are_kept_and_no_maps_at_full_size():
    side, tile = 768, 64
    objects = disks(side, 7.0, 16)
    maps = maps_of(objects[:tile, :tile])
    image = np.zeros((1, side, side), np.float32)

    def engine(images: np.ndarray):
        return (np.ascontiguousarray(maps[None, :, : images.shape[2], : images.shape[3]]),)

    run = Run(engine=engine, classes=ONE, divisors=(1, 1), tile=(tile, tile))
    view = View(image, (side, side), Grid((side, side)))
    decode_flows(run, View(image[:, :96, :96], (96, 96), Grid((96, 96))))  # the kernels are compiled
    tracemalloc.start()
    found = decode_flows(run, view)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) > 1000
    band = 4 * 3 * (tile + 1) * side
    assert peak < 11 * side * side + 5 * band  # flows 2, probability 1, where a pixel ends 4, middles 4; float maps have 12


# How far engines agree


def test_agreement_by_hand():
    reference = maps_of(np.array([[1, 1, 1, 0]], np.int32), np.array([1]))[None]
    assert flows_agree((reference,), (reference,), (1, 4)) == 1
    near, turned, lost, other = (reference.copy() for _ in range(4))
    near[0, :2] += 0.4
    assert flows_agree((near,), (reference,), (1, 4)) == 1
    turned[0, 1, 0, 0] -= 1  # a fifth of a pixel in each step
    assert flows_agree((turned,), (reference,), (1, 4)) == 0.75
    lost[0, 2, 0, :2] = -1
    assert flows_agree((lost,), (reference,), (1, 4)) == 0.5
    other[0, 3:] = 0
    assert flows_agree((other,), (reference,), (1, 4)) == 0.25


# Messages


def test_refuses_maps_for_other_classes():
    maps = maps_of(np.ones((4, 4), np.int32))
    with pytest.raises(ShapeError, match="gives 3 maps, but flows and 2 classes need 5; build it with num_classes"):
        decoded(maps, TWO)
    assert len(decoded(maps, ONE)) == 1


def test_refuses_volumes():
    run = Run(engine=lambda images: (images,), classes=ONE, divisors=(1, 1, 1))
    with pytest.raises(ShapeError, match=r"3 spatial axes .* flows lead through planes: give images \(C, H, W\)"):
        decode_flows(run, View(np.zeros((1, 2, 3, 4), np.float32), (2, 3, 4), Grid((2, 3, 4))))
