import numpy as np
import pytest

from segwright.codecs import rle
from segwright.core import Classes, Sample, Segmentation

CLASSES = Classes.of(
    ["road", "car", "a b/ü", "never"],
    colors=[(1, 2, 3), (40, 50, 60), (7, 8, 9), (0, 0, 0)],
    is_thing=[False, True, True, True],
)


def random_mask(generator, height, width):
    """Noise, a full frame, a single pixel, or a rectangle, with or without a hole; never empty."""
    mask = np.zeros((height, width), bool)
    kind, row, column = generator.integers(5), generator.integers(height), generator.integers(width)
    if kind == 0:
        mask = generator.random((height, width)) > generator.random()
    elif kind == 1:
        mask[:] = True
    elif kind > 2:
        mask[row : row + generator.integers(1, 20), column : column + generator.integers(1, 20)] = True
        mask[row + 2 : row + 5, column + 1 : column + 4] = kind == 3
    mask[row, column] = True
    return mask


def random_sample(key, seed, count):
    """An image with so many objects that overlap, stuff and crowds among them, with numbers, scores and void."""
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(1, 40, 2))
    masks = [random_mask(generator, height, width) for _ in range(count)]
    class_ids = generator.integers(0, 3, count).astype(np.int32)
    numbers = np.where(class_ids > 0, generator.permutation(count) + 3, 0).astype(np.int32)
    numbers[generator.random(count) < 0.2] = 0
    scores = np.where(generator.random(count) < 0.5, 1, generator.random(count)).astype(np.float32)
    void = rle.encode(generator.random((height, width)) > 0.7)
    planes = rle.paint_regions([rle.encode(mask) for mask in masks], (height, width), void if seed % 2 else None)
    image = generator.integers(0, 256, (3 if seed % 3 else 1, height, width), dtype=np.uint8)
    return Sample.of(key, image, Segmentation(planes, class_ids, numbers, scores, CLASSES))


@pytest.fixture(scope="session")
def hard_samples():
    """Samples with 0 to 300 objects of every shape, in two parts of a data set."""
    counts = [0, 1, 2, 5, 30, 300, *range(1, 15)]
    keys = [f"{'train' if n < 12 else 'val'}__a.{n:03d}" for n in range(len(counts))]
    return [random_sample(key, seed, count) for seed, (key, count) in enumerate(zip(keys, counts, strict=True))]


@pytest.fixture(scope="session")
def assert_same():
    """A function that compares samples, or their truth alone, up to the last pixel, number and score."""

    def check(read, written, image=True):
        assert read.key == written.key
        assert not image or (read.image.dtype == written.image.dtype and np.array_equal(read.image, written.image))
        for name in ("class_ids", "instance_ids", "scores"):
            assert np.array_equal(getattr(read.truth, name), getattr(written.truth, name)), (read.key, name)
        assert np.array_equal(read.truth.masks(), written.truth.masks()), read.key
        assert np.array_equal(read.truth.planes[0] == -1, written.truth.planes[0] == -1), read.key

    return check


@pytest.fixture(scope="session")
def mutations():
    """A function that damages a JSON file in many ways: mutations(path, count, seed) yields after each damage, then mends."""
    import re

    values = [b"null", b"-1", b"1e308", b"NaN", b"99999999999999999999", b'"../../../a.png"', b'"/a.png"', b"[]", b"{}", b'""']
    values += [b"true", b'"\\ud800"', b'"\\u0000"', b"1e-320", b"13377", b"[[]]", b'"mask"', b'"polygon"', b"-2147483649"]

    def damage(path, count, seed):
        whole, generator = path.read_bytes(), np.random.default_rng(seed)
        places = list(re.finditer(rb'(?<=[:\[,])\s*(-?[0-9.e+-]+|"[^"]*"|null|true|false)(?=[,\]\}\s])', whole))
        for _ in range(count):
            data, kind = bytearray(whole), generator.integers(4)
            if kind == 0:
                data = data[: generator.integers(len(data))]
            elif kind == 1:
                data[generator.integers(len(data))] = generator.integers(256)
            else:
                place = places[generator.integers(len(places))]
                data[place.start() : place.end()] = values[generator.integers(len(values))]
            path.write_bytes(bytes(data))
            yield
        path.write_bytes(whole)

    return damage
