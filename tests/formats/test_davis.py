import json
import logging
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from segwright.core import VOID, Classes, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.data.splits import open_splits
from segwright.formats import open_dataset
from segwright.formats.davis import PALETTE, matches, read, write

BOTH = Classes.of(["road", "car", "cat"], is_thing=[False, True, True])
NUMBERS = np.array([[0, 1, 1], [3, 255, 0]], np.uint8)


def frame(root, name, numbers=NUMBERS, has_image=True, has_mask=True, palette=True, folder="480p"):
    if has_image:
        file = root / "JPEGImages" / folder / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*NUMBERS.shape, 3), 100, np.uint8)).save(file)
    if has_mask:
        file = root / "Annotations" / folder / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        mask = Image.fromarray(numbers)
        if palette:
            mask.putpalette([value for color in PALETTE for value in color])
        mask.save(file)


def listed(root, **lists):
    for name, sequences in lists.items():
        file = root / "ImageSets" / "2017" / f"{name.replace('_', '-')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(sequences) + "\n")


def sample_of(key, segments=(1, 2, 3), class_ids=(0, 1, 2), ids=(0, 1, 9), classes=BOTH):
    segments = np.atleast_2d(segments)
    picture = np.random.default_rng(len(key)).integers(0, 256, (3, *segments.shape), dtype=np.uint8)
    return Sample.of(key, picture, Segmentation.panoptic(segments, class_ids, ids, classes=classes))


# By hand


def test_numbers_are_objects(tmp_path):
    frame(tmp_path, "bear/00000")
    data = read(tmp_path)
    assert matches(tmp_path) and data.keys == ("bear__00000",) and data.classes.names == ("object",)
    assert data.classes.is_thing == (True,) and data[0].image.shape == (3, 2, 3)
    found = data[0].truth
    assert found.planes[0].tolist() == [[0, 1, 1], [2, VOID, 0]] and found.instance_ids.tolist() == [1, 3]
    assert pickle.loads(pickle.dumps(data))[0].truth.class_ids.tolist() == [0, 0]
    assert data.image_files["bear__00000"] == tmp_path / "JPEGImages" / "480p" / "bear" / "00000.jpg"


def test_frames_without_annotation_have_no_truth(tmp_path):
    frame(tmp_path, "bear/00000")
    for number in (10, 9):
        frame(tmp_path, f"bear/{number}", has_mask=False)
    data = read(tmp_path)
    assert data.keys == ("bear__00000", "bear__9", "bear__10") and data[1].truth is None and data[0].truth is not None


def test_semantics_name_the_numbers(tmp_path):
    for name in ("bear/0", "lake/0"):
        frame(tmp_path, name)
    (tmp_path / "davis_semantics.json").write_text(json.dumps({"bear": {"1": "bear", "3": "ant"}, "unseen": {"1": "x"}}))
    data = read(tmp_path)
    assert data.classes.names == ("ant", "bear", "object")
    assert data[0].truth.class_ids.tolist() == [1, 0] and data[1].truth.class_ids.tolist() == [2, 2]


def test_lists_become_parts(tmp_path, caplog):
    for name in ("a/0", "b/0", "c/0", "d/0", "e/0"):
        frame(tmp_path, name)
    listed(tmp_path, val=["d", "b"], train=["c", "absent"], test_dev=["a"])
    data = read(tmp_path)
    assert data.keys == ("train__c__0", "val__d__0", "val__b__0", "test__a__0", "e__0")
    assert " sequences in its lists are not there (absent)" in caplog.text
    train, val = open_splits(tmp_path)
    assert train.keys == ("train__c__0",) and val.keys == ("val__d__0", "val__b__0")


def test_layouts(tmp_path, caplog):
    frame(tmp_path / "vos", "bear/00000", folder="")
    assert matches(tmp_path / "vos") and read(tmp_path / "vos").keys == ("bear__00000",)
    for folder in ("480p", "Full-Resolution"):
        frame(tmp_path / "two", "bear/00000", folder=folder)
    with caplog.at_level(logging.WARNING):
        data = read(tmp_path / "two")
    assert "480p" in str(data.image_files["bear__00000"]) and "holds 480p, Full-Resolution; only 480p is read" in caplog.text
    frame(tmp_path / "old", "bear/00000")
    (tmp_path / "old" / "Annotations").rename(tmp_path / "old" / "Annotations_unsupervised")
    assert matches(tmp_path / "old") and read(tmp_path / "old")[0].truth.instance_ids.tolist() == [1, 3]


def test_other_folders_are_not_taken(tmp_path):
    frame(tmp_path, "2007_000027", folder="")  # images without a sequence, as in VOC
    assert not matches(tmp_path)
    (tmp_path / "b" / "JPEGImages" / "x").mkdir(parents=True)
    (tmp_path / "b" / "Annotations").mkdir()
    (tmp_path / "b" / "Annotations" / "a.xml").write_text("<a/>")
    assert not matches(tmp_path / "b")


def test_black_and_white_masks_of_2016(tmp_path):
    mask = np.array([[0, 255, 255], [0, 0, 0]], np.uint8)
    frame(tmp_path, "bear/0", mask, palette=False)
    frame(tmp_path, "bear/1", mask)
    assert read(tmp_path)[0].truth.instance_ids.tolist() == [1]
    assert len(read(tmp_path)[1].truth) == 0  # with a palette, 255 is void


def test_masks_without_images(tmp_path, caplog):
    frame(tmp_path, "bear/0", has_image=False)
    listed(tmp_path, train=["bear"])
    with caplog.at_level(logging.WARNING):
        data = read(tmp_path)
    assert matches(tmp_path) and data[0].image.shape == (0, 2, 3) and "none of the images is there" in caplog.text
    frame(tmp_path, "bear/1")
    with pytest.raises(FormatError, match="bear/0.png: its image 'bear/0' is not there, others are"):
        read(tmp_path)[0]


def test_what_is_written(tmp_path):
    samples = [sample_of("train__bear__00000"), sample_of("train__bear__00001", (1, 0, VOID)), sample_of("val__x")]
    write(tmp_path / "data", samples)
    masks = sorted(path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("Annotations/**/*.png"))
    assert masks == [f"Annotations/480p/{name}.png" for name in ("bear/00000", "bear/00001", "x/x")]
    with Image.open(tmp_path / "data" / masks[1]) as mask:
        assert mask.mode == "P" and np.array(mask).tolist() == [[254, 0, 255]]
        assert mask.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]  # DAVIS's own colours
    assert (tmp_path / "data" / "ImageSets" / "2017" / "train.txt").read_text() == "bear\n"
    assert (tmp_path / "data" / "ImageSets" / "2017" / "all.txt").read_text() == "bear\nx\n"
    semantics = json.loads((tmp_path / "data" / "davis_semantics.json").read_text())
    assert semantics["bear"] == {"254": "road", "1": "car", "9": "cat"}


def test_overlaps_and_crowds_are_lost(tmp_path):
    masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], bool)
    truth = Segmentation.instances(masks, [1, 1], instance_ids=[0, 5], classes=BOTH)
    write(tmp_path / "data", [Sample.of("a", np.zeros((1, 1, 3), np.uint8), truth)])
    back = read(tmp_path / "data")[0].truth
    assert back.planes.tolist() == [[[2, 1, 1]]] and back.instance_ids.tolist() == [5, 253]


def test_a_frame_with_another_class_is_a_sequence_of_its_own(tmp_path):
    samples = [sample_of(f"a__{n}", (1, 1), [k], [4]) for n, k in enumerate((1, 2, 1))]
    write(tmp_path / "data", samples)
    data = read(tmp_path / "data")
    assert data.keys == ("a__0", "a__1", "a__2") and [s.truth.class_ids.tolist() for s in data] == [[1], [2], [1]]


# By a law


@settings(max_examples=30)
@given(data=st.data(), frames=st.integers(1, 3))
def test_any_video_comes_back(tmp_path_factory, data, frames):
    place = tmp_path_factory.mktemp("data") / "set"
    samples = []
    for number in range(frames):
        shape = data.draw(array_shapes(min_dims=2, max_dims=2, max_side=6))
        segments = data.draw(arrays(np.int64, shape, elements=st.integers(-1, 5)))
        samples.append(sample_of(f"train__dog__{number:05}", segments, [0, 1, 2, 1, 2], [0, 1, 2, 254 - 5, 7]))
    write(place, samples)
    back = open_dataset(place)
    assert back.keys == tuple(sample.key for sample in samples) and back.classes == BOTH
    for before, after in zip(samples, back, strict=True):
        assert np.array_equal(before.image, after.image)
        assert np.array_equal(before.truth.planes == VOID, after.truth.planes == VOID)
        objects = [
            {
                int(n): (int(k), mask.tolist())
                for n, k, mask in zip(t.instance_ids, t.class_ids, t.masks(), strict=True)
                if mask.any()
            }
            for t in (before.truth, after.truth)
        ]
        assert objects[0] == objects[1]


@pytest.mark.parametrize(
    "keys",
    [
        ("b", "a"),
        ("a__0", "b__0", "a__1", "train__a__3", "c", "x__x", "a__1__0"),
        ("val__b__0", "train__a__0", "val__b__1"),
        ("train__img1", "val__img1"),
        ("b__2", "b__1", "b__3"),
        ("train__train__x__0", "Val__x"),
        ("test__a__1", "a__2"),
    ],
)
def test_keys_keep_their_order(tmp_path, keys):
    write(tmp_path / "data", [sample_of(key) for key in keys])
    assert open_dataset(tmp_path / "data").keys == keys


def test_writing_goes_on_where_it_stopped(tmp_path):
    samples = [sample_of(f"a__{n}") for n in range(4)]

    def stopping():
        yield from samples[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "data", stopping())
    write(tmp_path / "data", samples)
    assert read(tmp_path / "data").keys == tuple(sample.key for sample in samples)
    assert sorted(path.name for path in (tmp_path / "data" / "Annotations" / "480p").iterdir()) == ["a"]


# By its messages


@pytest.mark.parametrize(
    ("semantics", "message"),
    [
        ('{"bear": {"1": "bear"}}', "holds the number 3, which davis_semantics.json does not name; add it to 'bear'"),
        ('{"bear": {"1": 7}}', "davis_semantics.json.bear.1: .*valid string"),
        ("[]", "davis_semantics.json: "),
        ('{"bear"', "davis_semantics.json: "),
    ],
)
def test_semantics_that_are_wrong(tmp_path, semantics, message):
    frame(tmp_path, "bear/0")
    (tmp_path / "davis_semantics.json").write_text(semantics)
    with pytest.raises(FormatError, match=message):
        read(tmp_path)[0]


def test_classes_that_do_not_fit(tmp_path):
    frame(tmp_path, "bear/0")
    (tmp_path / "classes.json").write_text('["a"]')
    with pytest.raises(FormatError, match="'object', the class of number 1, is not in classes.json; add it there"):
        read(tmp_path)[0]


def test_files_that_are_wrong(tmp_path):
    with pytest.raises(FormatError, match="has no folder Annotations/; give the folder that holds it and JPEGImages/"):
        read(tmp_path)
    frame(tmp_path, "bear/0", has_mask=False)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(FormatError, match="Annotations holds no mask; add the annotations, as SEQUENCE/00000.png"):
        read(tmp_path)
    frame(tmp_path, "bear/0", np.zeros((5, 5), np.uint8))
    with pytest.raises(
        FormatError, match=r"is 5 x 5, its image .*0.jpg is 2 x 3 \(rows x columns\); give masks and images of one"
    ):
        read(tmp_path)[0]
    frame(tmp_path, "bear/0", np.full((2, 3), 300, np.uint16), palette=False)
    with pytest.raises(FormatError, match="is 2 x 3 and holds numbers up to 300; flat masks of 0..255 are needed"):
        read(tmp_path)[0]
    frame(tmp_path, "bear/0")
    Image.fromarray(NUMBERS).save(tmp_path / "JPEGImages" / "480p" / "bear" / "0.png")
    with pytest.raises(FormatError, match="0.png and .*0.jpg are one frame; remove one|0.jpg and .*0.png are one frame"):
        read(tmp_path)


def test_what_cannot_be_written(tmp_path):
    volume = Sample.of("a", np.zeros((1, 2, 2, 2), np.uint8), Segmentation.semantic(np.zeros((2, 2, 2), int)))
    with pytest.raises(OutputError, match="is a volume, 2 x 2 x 2, and davis holds flat images"):
        write(tmp_path / "volume", [volume])
    with pytest.raises(OutputError, match="a segment of 'cat' would get the number 300, which is not free in 1..254"):
        write(tmp_path / "high", [sample_of("a", ids=(0, 1, 300))])
    with pytest.raises(OutputError, match="a segment of 'car' would get the number 254, which is not free"):
        write(tmp_path / "taken", [sample_of("a", ids=(0, 254, 3))])
    with pytest.raises(OutputError, match="'a__1' is called like a sequence of others; rename it"):
        write(tmp_path / "name", [sample_of("a__1__0"), sample_of("a__2"), sample_of("a__1")])
