"""Masks survive: what a format can hold comes back from it pixel by pixel, and from any other format that can hold it too."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segwright.conversion import compare_samples, convert, writers
from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.formats import open_dataset, readers

THINGS = Classes.of(["car", "person"], is_thing=[True, True])
STUFF = Classes.of(["road", "sky", "tree"])
BOTH = Classes.of(["road", "car", "person"], is_thing=[False, True, True])

# What each format can hold. "objects": things apart, nothing elsewhere; "overlaps": the same, overlapping; "crowds": things
# apart of which some have no number; "classes": class maps; "void": class maps with void; "panoptic": stuff, things and void.
MAPS, DRAWN = ("objects", "crowds", "classes", "void", "panoptic"), ("objects", "overlaps", "classes")
HOLDS = {
    "ade20k": MAPS,
    "cityscapes": MAPS,
    "coco": (*MAPS, "overlaps"),
    "coco_panoptic": ("classes", "void", "panoptic"),
    "cvat": DRAWN,
    "datumaro": (*MAPS, "overlaps"),
    "davis": ("objects", "classes", "void", "panoptic"),
    "geojson": (*MAPS, "overlaps"),
    "label_studio": (*MAPS, "overlaps"),
    "labelme": (*MAPS, "overlaps"),
    "mask_folder": MAPS,
    "nnunet": ("classes", "void"),
    "ome_zarr": (*MAPS, "overlaps"),
    "tiff": (*MAPS, "overlaps"),
    "voc": MAPS,
    "volume": MAPS,
    "yolo": DRAWN,
}
DAVIS = ("davis",)  # its 8 bits hold 254 numbers
MANY = {300: [name for name in HOLDS if name not in DAVIS], 200: DAVIS}  # objects in one image -> formats that hold so many


def sample_of(key: str, truth: Segmentation) -> Sample:
    image = np.random.default_rng(len(key)).integers(0, 256, (3, *truth.shape), dtype=np.uint8)
    return Sample.of(key, image, truth)


def of_masks(masks: np.ndarray, kind: str) -> Segmentation:
    """Objects of two classes from masks (N, H, W); every third is a crowd where there are such."""
    if kind != "overlaps":
        masks = masks & ~(np.cumsum(masks, axis=0) - masks).astype(bool)  # the first keeps the pixel
    numbers = np.arange(1, len(masks) + 1)
    if kind == "crowds":
        numbers[::3] = 0
    return Segmentation.instances(masks, np.arange(len(masks)) % 2, instance_ids=numbers, classes=THINGS)


def of_map(segment_map: np.ndarray, kind: str) -> Segmentation:
    """Stuff, or stuff and things, from a map (H, W) of -1, 0, 1, ..., where -1 is void if there is such."""
    if kind == "classes":
        segment_map = np.abs(segment_map)
    if kind != "panoptic":
        return Segmentation.semantic(np.where(segment_map < 0, VOID, segment_map % 3), STUFF)
    count = int(segment_map.max(initial=0)) + 1
    class_ids = [0, *(1 + number % 2 for number in range(1, count))]
    return Segmentation.panoptic(np.where(segment_map < 0, VOID, segment_map + 1), class_ids, range(count), classes=BOTH)


@st.composite
def truths(draw: st.DrawFn, kind: str) -> Segmentation:
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
    if kind in ("objects", "overlaps", "crowds"):
        return of_masks(draw(arrays(bool, (draw(st.integers(0, 5)), *shape))), kind)
    return of_map(draw(arrays(np.int64, shape, elements=st.integers(-1, 5))), kind)


def edge_cases(kind: str, count: int) -> Iterator[Sample]:
    """Holes, several parts, parts that touch at a corner, single pixels, a full frame, no object, and `count` objects."""
    generator = np.random.default_rng(0)
    size = 24
    if kind in ("classes", "void", "panoptic"):
        yield sample_of("many", of_map(np.arange(size * size).reshape(size, size) % count, kind))
        yield sample_of("one", of_map(np.zeros((1, 1), int), kind))
        yield sample_of("random", of_map(generator.integers(-1, 4, (size, size)), kind))
        return
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - 11.5, columns - 11.5)
    yield sample_of("rings", of_masks(np.array([(distance < 4) & (distance > 2), (distance < 11) & (distance > 6)]), kind))
    yield sample_of("corners", of_masks(np.array([(rows + columns) % 2 == 0, (rows + columns) % 2 == 1]), kind))
    yield sample_of("pixel", of_masks((distance == distance.min())[None] & (rows > 11)[None] & (columns > 11)[None], kind))
    yield sample_of("full", of_masks(np.ones((1, 5, 7), bool), kind))
    yield sample_of("none", of_masks(np.zeros((0, 5, 7), bool), kind))
    many = np.zeros((count, size, size), bool)
    for index, place in enumerate(generator.permutation(size * size)[:count]):
        row, column = divmod(int(place), size)
        many[index, row : row + 1 + 2 * (kind == "overlaps"), column] = True
    yield sample_of("hundreds", of_masks(many, kind))


def test_every_format_says_what_it_holds():
    assert set(HOLDS) == set(writers())
    for name in HOLDS:
        assert isinstance(readers()[name].LOSES, str)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in HOLDS for kind in HOLDS[name]])
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_mask_comes_back(name, kind, data, tmp_path_factory):
    written = [sample_of(f"s{index}", data.draw(truths(kind))) for index in range(2)]
    place = tmp_path_factory.mktemp("data") / "set"
    readers()[name].write(place, written)
    for before, after in zip(written, open_dataset(place, name), strict=True):
        change = compare_samples(before, after)
        assert (change.key, change.iou, change.reasons) == (after.key, 1.0, ())


@pytest.mark.parametrize("source", HOLDS)
def test_masks_survive_every_pair_of_formats(source, tmp_path):
    for kind in HOLDS[source]:
        for count, targets in ({200: HOLDS} if source in DAVIS else MANY).items():
            written, place = list(edge_cases(kind, count)), tmp_path / f"{kind}-{count}"
            readers()[source].write(place / "source", written)
            back = open_dataset(place / "source", source)
            assert sorted(back.keys) == sorted(sample.key for sample in written)
            for before in written:
                assert compare_samples(before, back.load(before.key)).reasons == (), (kind, before.key)
            for target in targets:
                if kind in HOLDS[target]:
                    report = convert(place / "source", place / target, target, format=source)
                    assert report.lossless == report.count and report.iou == 1, f"{source} to {target}, {kind}: {report}"
