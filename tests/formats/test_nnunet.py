import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segwright.codecs.image_file import read_mask
from segwright.codecs.image_writer import write_image, write_values
from segwright.codecs.volume_file import read_volume, write_volume
from segwright.core import VOID, Classes, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.data.splits import open_splits
from segwright.formats import nnunet, open_dataset

SHARED = Path(__file__).parents[3] / "shared" / "data" / "hippocampus"
AFFINE = np.array([[0, 0, -0.5, 7], [0, 0.7, 0, -8], [2.5, 0, 0, 9], [0, 0, 0, 1.0]])
LIVER = {"background": 0, "liver": 1, "lesion": 2}


def make(root: Path, labels: dict, numbers: np.ndarray, *, ending: str = ".png", channels: int = 1, **content):
    """One case "a" whose label has these numbers (H, W)."""
    image = np.arange(channels * numbers.size).reshape(channels, *numbers.shape).astype(np.uint8)
    for channel in range(channels):
        write_image(root / "imagesTr" / f"a_{channel:04d}", image[channel : channel + 1])
    write_values(root / "labelsTr" / "a.png", numbers.astype(np.uint8))
    named = {str(index): f"channel {index}" for index in range(channels)}
    text = {"channel_names": named, "labels": labels, "file_ending": ending, "numTraining": 1, **content}
    (root / "dataset.json").write_text(json.dumps(text))
    return root


def semantic(key: str, classes: Classes, *, shape=(3, 4, 5), dtype=np.float32, channels: int = 2) -> Sample:
    generator = np.random.default_rng(len(key))
    grid = Grid(shape, (2.5, 0.7, 0.5), AFFINE) if len(shape) == 3 else Grid(shape)
    truth = Segmentation.semantic(generator.integers(VOID, len(classes), shape), classes)
    return Sample(key, generator.uniform(0, 255, (channels, *shape)).astype(dtype), grid, truth)


# By hand


def test_labels_and_ignore(tmp_path):
    make(tmp_path, LIVER | {"ignore": 3}, np.array([[0, 1, 2, 3]]), channels=2)
    assert nnunet.matches(tmp_path)
    data = open_dataset(tmp_path)
    assert data.keys == ("a",) and data.classes.names == ("background", "liver", "lesion")
    assert data[0].truth.class_map().tolist() == [[0, 1, 2, VOID]]
    assert data[0].image.tolist() == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]


@pytest.mark.parametrize("is_one_file", [True, False])
def test_the_form_of_the_decathlon(tmp_path, is_one_file):
    pytest.importorskip("SimpleITK")
    image, numbers = np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4), np.arange(24).reshape(1, 2, 3, 4) % 3
    grid = Grid((2, 3, 4), (2.5, 0.7, 0.5), AFFINE)
    for channel in range(2):
        name = "hippo_0001" if is_one_file else f"hippo_0001_{channel:04d}"  # four digits, as of a channel
        write_volume(tmp_path / f"imagesTr/{name}.nii.gz", image if is_one_file else image[channel : channel + 1], grid)
    write_volume(tmp_path / "labelsTr/hippo_0001.nii.gz", numbers.astype(np.uint8), grid)
    content = {"modality": {"0": "FLAIR", "1": "T1w"}, "labels": {"0": "background", "1": "edema", "2": "core"}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    [sample] = open_dataset(tmp_path)
    assert sample.key == "hippo_0001" and np.array_equal(sample.image, image)
    assert sample.truth.classes.names == ("background", "edema", "core")
    assert np.array_equal(sample.truth.class_map(), numbers[0])


def test_stacks_without_axis_names_are_volumes(tmp_path):
    """nnU-Net keeps each channel in a file of its own, so that a third axis is depth."""
    image, label = np.arange(210, dtype=np.uint16).reshape(5, 6, 7), np.arange(210, dtype=np.uint8).reshape(5, 6, 7) % 3
    for place, array in (("imagesTr/a_0000.tif", image), ("imagesTr/a_0001.tif", image + 1), ("labelsTr/a.tif", label)):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / place, array, photometric="minisblack")
    content = {"channel_names": {"0": "a", "1": "b"}, "labels": LIVER, "file_ending": ".tif"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    [sample] = open_dataset(tmp_path)
    assert np.array_equal(sample.image, np.stack([image, image + 1])) and np.array_equal(sample.truth.class_map(), label)


def test_regions_overlap(tmp_path):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    make(tmp_path, labels, np.array([[0, 1, 2, 3, 4]]), regions_class_order=[1, 2, 3])
    truth = nnunet.read(tmp_path)[0].truth
    assert truth.classes.names == ("whole", "core", "enhancing")
    assert truth.classes.regions == ((1, 2, 3), (2, 3), (3,))
    assert truth.masks().astype(int).tolist() == [[[0, 1, 1, 1, 0]], [[0, 0, 1, 1, 0]], [[0, 0, 0, 1, 0]]]
    assert truth.class_map().tolist() == [[VOID, 0, 1, 2, VOID]]
    assert (truth.planes == VOID).any(axis=0).tolist() == [[False] * 4 + [True]]


@pytest.mark.parametrize("order", [[1, 3, 2], None])
def test_regions_are_written_with_the_numbers_they_were_read_with(tmp_path, order):
    """KiTS: the cyst, 3, lies in the masses and is no tumour, so that masses write it."""
    labels = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": [2], "ignore": 4}
    content = {} if order is None else {"regions_class_order": order}
    numbers = np.array([[0, 1, 2, 3, 4, 2]])
    [sample] = nnunet.read(make(tmp_path / "a", labels, numbers, **content))
    assert sample.truth.classes.regions == ((1, 2, 3), (3, 2), (2,))
    nnunet.write(tmp_path / "b", [sample])
    written = json.loads((tmp_path / "b" / "dataset.json").read_text())
    assert written["labels"] == labels and written["regions_class_order"] == [1, 3, 2]
    assert (read_mask(tmp_path / "b" / "labelsTr" / "a.png") == numbers).all()
    assert nnunet.read(tmp_path / "b").classes == sample.truth.classes


@pytest.mark.parametrize("order", [[1, 2], [1, 1, 3]])
def test_an_order_that_does_not_fit_the_regions_is_told(tmp_path, order):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    with pytest.raises(FormatError, match="regions_class_order is .* a number that lies in it"):
        nnunet.read(make(tmp_path, labels, np.array([[0, 1, 2, 3]]), regions_class_order=order))


def test_labels_of_the_test_part_make_it_one(tmp_path, caplog):
    make(tmp_path, LIVER, np.array([[0, 1, 2]]))
    write_image(tmp_path / "imagesTs" / "b_0000", np.zeros((1, 1, 3), np.uint8))
    write_image(tmp_path / "imagesTs" / "without_0000", np.zeros((1, 1, 3), np.uint8))
    assert open_dataset(tmp_path).keys == ("a",)
    write_values(tmp_path / "labelsTs" / "c.png", np.array([[2, 1, 0]], np.uint8))
    assert open_dataset(tmp_path).keys == ("a",) and "no label in labelsTs/ (1) has an image in imagesTs/" in caplog.text
    (tmp_path / "labelsTs" / "c.png").rename(tmp_path / "labelsTs" / "b.png")
    data = open_dataset(tmp_path)
    assert data.keys == ("train__a", "test__b") and data[1].truth.class_map().tolist() == [[2, 1, 0]]
    train, val = open_splits(tmp_path)
    assert train.keys == ("train__a",) and val.keys == ("test__b",)  # nothing of labelsTs/ is trained with


def test_what_is_written_is_what_nnu_net_demands(tmp_path):
    """0 is the background, numbers are consecutive, ignore is the highest."""
    nnunet.write(tmp_path / "a", [semantic("x", Classes.of(["background", "liver"]))])
    content = json.loads((tmp_path / "a" / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1, "ignore": 2} and content["file_ending"] == ".nii.gz"
    assert content["numTraining"] == 1 and list(content["channel_names"]) == ["0", "1"]
    assert sorted(path.name for path in (tmp_path / "a" / "imagesTr").iterdir()) == ["x_0000.nii.gz", "x_0001.nii.gz"]
    nnunet.write(tmp_path / "b", [semantic("x", Classes.of(["road", "sky"]), shape=(4, 5), dtype=np.uint8, channels=3)])
    content = json.loads((tmp_path / "b" / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "road": 1, "sky": 2, "ignore": 3} and content["file_ending"] == ".png"
    assert list(content["channel_names"].values()) == ["R", "G", "B"]
    assert [path.name for path in (tmp_path / "b" / "imagesTr").iterdir()] == ["x_0000.png"]


# By a law


@pytest.mark.parametrize("names", [("background", "liver"), ("road", "sky", "car"), ("background",), ("only",)])
@pytest.mark.parametrize(
    "kind", [{}, {"shape": (4, 5), "dtype": np.uint8}, {"shape": (4, 5), "dtype": np.uint16, "channels": 3}]
)
@pytest.mark.parametrize("is_float", [False, True])
def test_class_maps_come_back(tmp_path, names, kind, is_float):
    kind = kind | ({"dtype": np.float32} if is_float else {})
    classes = Classes.of(names, colors=[(k, 2, 3) for k in range(len(names))], is_thing=[k == 1 for k in range(len(names))])
    written = [semantic(key, classes, **kind) for key in ("a", "train__b")]
    nnunet.write(tmp_path / "set", written)
    data = open_dataset(tmp_path / "set")
    assert data.classes == classes and data.keys == ("a", "train__b")
    for before, after in zip(written, data, strict=True):
        assert before.image.dtype == after.image.dtype and np.array_equal(before.image, after.image)
        assert np.array_equal(before.truth.class_map(), after.truth.class_map())
        if before.grid.affine is not None:
            assert np.allclose(before.grid.affine, after.grid.affine, atol=1e-5)


def test_regions_come_back(tmp_path):
    classes = Classes.of(["whole", "core", "other"])
    generator = np.random.default_rng(0)
    written = []
    for key in "ab":
        truth = Segmentation.instances(generator.random((3, 4, 5)) < 0.6, [0, 1, 2], instance_ids=[0, 0, 0], classes=classes)
        written.append(Sample.of(key, np.zeros((1, 4, 5), np.uint8), truth))
    nnunet.write(tmp_path / "set", written)
    content = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert content["labels"]["core"] == [2, 3, 6, 7] and content["regions_class_order"] == [1, 3, 7]
    for before, after in zip(written, open_dataset(tmp_path / "set"), strict=True):
        assert np.array_equal(before.truth.masks(), after.truth.masks()) and (after.truth.planes != VOID).all()
    nnunet.write(tmp_path / "again", open_dataset(tmp_path / "set"))
    assert json.loads((tmp_path / "again" / "dataset.json").read_text()) == content


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_hippocampus(tmp_path):
    data = open_dataset(SHARED)
    assert len(data) == 200 and data.classes.names == ("background", "Anterior", "Posterior")
    few = data.subset(data.keys[:3])
    nnunet.write(tmp_path / "set", few)
    for before, after in zip(few, open_dataset(tmp_path / "set"), strict=True):
        assert before.image.dtype == after.image.dtype and np.array_equal(before.image, after.image)
        assert np.array_equal(before.truth.class_map(), after.truth.class_map())
        assert np.allclose(before.grid.affine, after.grid.affine) and before.grid.spacing_mm == after.grid.spacing_mm


# By its messages


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {"background": 0, "liver": "1"}}, "labels"),
        ({"labels": {"0": "background"}, "modality": {"0": "MR"}}, "each class needs its number|no label"),
        ({"labels": {"background": 0, "liver": 0}}, "each class needs its number"),
        ({"labels": {"background": 0, "liver": 70_000}}, "labels"),
        ({"labels": {}}, "each class needs its number"),
        ({"file_ending": ".b2nd"}, "file_ending is '.b2nd'"),
        ({"file_ending": ".tif"}, "holds no image CASE_0000.tif"),
        ({"channel_names": {"0": "a", "1": "b"}}, "have 1 channels, dataset.json names 2"),
        ({"labels": {"background": 0, "liver": 1}}, "holds the number 2, which has no label"),
    ],
)
def test_a_wrong_dataset_json_is_told(tmp_path, change, message):
    make(tmp_path, LIVER, np.array([[0, 1, 2]]))
    content = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(content | change))
    with pytest.raises(FormatError, match=message) as error:
        nnunet.read(tmp_path)[0]
    assert str(tmp_path) in str(error.value)


def test_files_that_are_missing_are_told(tmp_path):
    make(tmp_path, LIVER, np.array([[0, 1, 2]]), channels=3)
    (tmp_path / "imagesTr" / "a_0001.png").unlink()
    with pytest.raises(FormatError, match=r"case a has the channels \[0, 2\]"):
        nnunet.read(tmp_path)
    make(tmp_path, LIVER, np.array([[0, 1, 2]]), channels=3)
    (tmp_path / "labelsTr" / "a.png").unlink()
    with pytest.raises(FormatError, match="a.png does not exist; .* cases without truth lie in imagesTs"):
        nnunet.read(tmp_path)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        nnunet.read(tmp_path)
    assert not nnunet.matches(tmp_path)


def test_a_label_on_another_grid_is_told(tmp_path):
    nnunet.write(tmp_path / "set", [semantic("a", Classes.of(["background", "liver"]))])
    place = tmp_path / "set" / "labelsTr" / "a.nii.gz"
    write_volume(place, read_volume(place)[0], Grid((3, 4, 5), (1.0, 1.0, 1.0)))
    with pytest.raises(FormatError, match="voxels apart"):
        nnunet.read(tmp_path / "set")[0]


def test_a_thousand_classes(tmp_path):
    nnunet.write(tmp_path, [semantic("a", Classes.of([f"class {number}" for number in range(1000)]))])
    assert len(nnunet.read(tmp_path).classes) == 1000


def test_samples_that_do_not_fit_are_told(tmp_path):
    classes = Classes.of(["background", "liver"])
    first = semantic("a", classes)
    for other, message in (
        (semantic("b", classes, channels=1), "has 1 channels, the first one 2"),
        (semantic("b", classes, shape=(4, 5)), "needs .tif, the first one .nii.gz"),
        (replace(first, key="b", image=np.zeros((0, 3, 4, 5), np.uint8)), "has no image"),
    ):
        with pytest.raises(OutputError, match=message):
            nnunet.write(tmp_path / message[:6], [first, other])
    for name in ("background", "ignore"):
        with pytest.raises(OutputError, match=f"has a class '{name}', which nnU-Net keeps for .*; rename it in the source"):
            nnunet.write(tmp_path / "names", [semantic("a", Classes.of(["liver", name]))])
        assert not (tmp_path / "names").exists()  # told before the first file
    masks = np.ones((16, 2, 2), bool)
    truth = Segmentation.instances(masks, range(16), instance_ids=[0] * 16)
    with pytest.raises(OutputError, match="16 classes that overlap, 16-bit labels hold 15"):
        nnunet.write(tmp_path / "many", [Sample.of("a", np.zeros((1, 2, 2), np.uint8), truth)])
