import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segwright.codecs import rle
from segwright.codecs.image_writer import write_image
from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats.image_index import ImageIndex
from segwright.formats.named_objects import (
    Region,
    check_size,
    find_classes,
    find_image,
    images_by_key,
    label_files,
    label_name,
    number_attributes,
    place_of,
    read_picture,
    regions_of,
    segmentation,
    truth_2d,
    unique_keys,
    unread_picture,
    without,
    write_classes_file,
)

TWO = Classes.of(["car", "road"], is_thing=[True, False])
MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))


def counts_of(*rows):
    return rle.encode(np.array(rows, bool))


def pixels(counts, shape):
    return rle.decode(counts, shape).astype(int).tolist()


# By hand


def test_regions_become_a_segmentation():
    left, right = counts_of([1, 0, 0]), counts_of([0, 1, 0])
    regions = [
        Region("car", left),
        Region("car", right, 1, 0.5),
        Region("road", right),
        Region("car", left, 0),
        Region("car", left),
    ]
    truth = segmentation(regions, (1, 3), TWO, "here", void=counts_of([0, 1, 1]))
    assert truth.instance_ids.tolist() == [2, 1, 0, 0, 3] and truth.class_ids.tolist() == [0, 0, 1, 0, 0]
    assert truth.scores.tolist() == [1, 0.5, 1, 1, 1] and truth.planes.tolist() == [[[1, 2, -1]], [[4, 3, 0]], [[5, 0, 0]]]
    back = list(regions_of(Sample.of("a", np.zeros((1, 1, 3), np.uint8), truth), "x"))
    assert [region.name for region in back] == ["car", "car", "road", "car", "car"]
    assert [number_attributes(region) for region in back[:3]] == [
        {"instance_id": 2},
        {"instance_id": 1, "score": 0.5},
        {"instance_id": 0},
    ]


def test_classes_from_names_or_from_the_file(tmp_path):
    classes = find_classes(tmp_path, ["b10", "b9", "b9"], {"b9": (1, 2, 3)})
    assert classes.names == ("b9", "b10") and classes.colors[0] == (1, 2, 3) and classes.is_thing == (True, True)
    assert find_classes(tmp_path, []).names == ("object",)
    write_classes_file(tmp_path, TWO)
    assert find_classes(tmp_path, ["other"]) == TWO
    (tmp_path / "classes.json").write_text('["x", "y"]')
    assert find_classes(tmp_path, []) == Classes.of(["x", "y"], is_thing=[True, True])
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["x"], "is_thing": [False]}))
    assert find_classes(tmp_path, []).is_thing == (False,)


def test_images_are_found_from_the_folder_and_then_anywhere(tmp_path):
    image = np.zeros((1, 2, 3), np.uint8)
    for place in ("a", "train/a", "images/b"):
        write_image(tmp_path / place, image)
    (tmp_path.parent / "secret.png").write_bytes(b"")
    index = ImageIndex(tmp_path)
    assert find_image(index, ".", "a.png") == tmp_path / "a.png"
    assert find_image(index, "train", "a.png") == tmp_path / "train/a.png"
    assert (
        find_image(index, "labels", "..\\images\\b.png") == find_image(index, ".", "/data/b.png") == tmp_path / "images/b.png"
    )
    assert (
        find_image(index, ".", "../secret.png") is find_image(index, ".", "a\0.png") is find_image(index, ".", "c.png") is None
    )


def test_keys_and_places(tmp_path):
    assert place_of("train__a__b") == "train/a__b" and place_of("other__a") == "other__a" and place_of("val__.a") == "val__.a"
    assert unique_keys(["train/a", "b"], tmp_path) == {"train__a": 0, "b": 1}
    for name in ("labels/train/a.json", ".hidden/b.json", "classes.json", "c.JSON", "labels.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = list(label_files(tmp_path, ".json"))
    assert [label_name(tmp_path, file) for file in files] == ["c", "labels", "train/a"]


# By a slow twin


@given(MASKS, st.integers(0, 2**32))
@settings(max_examples=200)
def test_without(mask, seed):
    taken = np.random.default_rng(seed).random(mask.shape) > 0.5
    left = rle.decode(without(rle.encode(mask), rle.encode(taken), mask.shape), mask.shape)
    assert np.array_equal(left, mask & ~taken)


# By its messages


def test_what_is_refused(tmp_path):
    one = counts_of([1])
    with pytest.raises(FormatError, match="here: 'tree' is no class of classes.json; add it there"):
        segmentation([Region("tree", one)], (1, 1), TWO, "here")
    for number in (-1, 2**31):
        with pytest.raises(FormatError, match=f"here: an object has the number {number}; numbers are 0..2147483647"):
            segmentation([Region("car", one, number)], (1, 1), TWO, "here")
    for score in (1e308, float("nan")):
        with pytest.raises(FormatError, match="here: an object has the score .*correct it"):
            segmentation([Region("car", one, 1, score)], (1, 1), TWO, "here")
    for size in ((0, 4), (4, -1), (20_000, 20_000)):
        with pytest.raises(FormatError, match=f"here: an image of {size[0]} x {size[1]} .* is impossible"):
            check_size(*size, "here")
    assert check_size(3, 4, "here") == (3, 4)
    with pytest.raises(FormatError, match="two samples that would both be called 'a__b'; rename"):
        unique_keys(["a/b", "a__b"], tmp_path)
    with pytest.raises(FormatError, match="a.png is the image of 'a' and of 'b'; is one missing"):
        images_by_key(["a", "b"], [tmp_path / "a.png"] * 2)
    with pytest.raises(FormatError, match="colour .*was given"):
        find_classes(tmp_path, ["a"], {"a": (0, 0, 300)})
    volume = Sample.of("v", np.zeros((1, 2, 2, 2), np.uint8), Segmentation.semantic(np.zeros((2, 2, 2), int), TWO))
    with pytest.raises(OutputError, match="'v' is a volume, 2 x 2 x 2, and x holds flat images; write it as nnunet"):
        truth_2d(volume, "x")


@pytest.mark.parametrize("read", [read_picture, unread_picture])
def test_images_that_are_missing_or_do_not_fit(tmp_path, read):
    channels = 3 if read is read_picture else 0
    path = write_image(tmp_path / "a", np.zeros((3, 2, 4), np.uint8))
    assert read(path, (2, 4), "here", name="a.png", is_needed=True).shape == (channels, 2, 4)
    assert read(path, None, "here", name="a.png", is_needed=True).shape == (channels, 2, 4)
    assert read(None, (2, 4), "here", name="a.png", is_needed=False).shape == (0, 2, 4)
    with pytest.raises(FormatError, match="a.png is 2 x 4 .* but here tells of 4 x 2; give the image that was annotated"):
        read(path, (4, 2), "here", name="a.png", is_needed=True)
    with pytest.raises(FormatError, match="here: its image 'a.png' is not there, others are; add it"):
        read(None, (4, 2), "here", name="a.png", is_needed=True)
    with pytest.raises(FormatError, match="here: neither its image 'a.png' nor the size of that is known"):
        read(None, None, "here", name="a.png", is_needed=False)
    volume = write_image(tmp_path / "v", np.zeros((1, 2, 3, 4), np.uint8))
    with pytest.raises(FormatError, match="v.tif is a volume, here is about a flat image"):
        read(volume, None, "here", name="v.tif", is_needed=True)


def test_a_picture_of_which_only_the_head_is_whole(tmp_path):
    path = write_image(tmp_path / "a", np.random.default_rng(0).integers(0, 256, (3, 40, 60), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[2000] ^= 255  # a pixel
    path.write_bytes(data)
    assert unread_picture(path, (40, 60), "here", name="a.png", is_needed=True).shape == (0, 40, 60)
    with pytest.raises(FormatError, match="a.png is damaged"):
        read_picture(path, (40, 60), "here", name="a.png", is_needed=True)
