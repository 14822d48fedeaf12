import json
from dataclasses import replace

import numpy as np
import pytest

from segwright.codecs.volume_file import read_volume, write_volume
from segwright.core import VOID, Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import open_dataset, volume

pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")

CLASSES = Classes.of(["background", "liver", "lesion"], is_thing=[False, False, True])
AFFINE = np.array([[0, 0, -0.5, 7], [0, 0.7, 0, -8], [2.5, 0, 0, 9], [0, 0, 0, 1.0]])


def sample(key: str, shape: tuple[int, ...] = (3, 4, 5)) -> Sample:
    """A volume with void, nothing, stuff and two lesions."""
    generator = np.random.default_rng(len(key))
    truth = Segmentation.panoptic(generator.integers(-1, 5, shape), [0, 1, 2, 2], [0, 0, 3, 8], classes=CLASSES)
    grid = Grid(shape, (2.5, 0.7, 0.5), AFFINE) if len(shape) == 3 else Grid(shape)
    return Sample(key, generator.normal(size=(1, *shape)).astype(np.float32), grid, truth)


def put(root, **files):
    """Volumes by "folder/name" on one grid."""
    for name, array in files.items():
        folder, _, rest = name.partition("__")
        write_volume(root / folder / f"{rest}.nii.gz", array, Grid(array.shape[1:], (2.5, 0.7, 0.5), AFFINE))


# By hand


def test_numbers_are_guessed(tmp_path):
    image, mask = np.zeros((1, 2, 3, 4), np.float32), np.zeros((1, 2, 3, 4), np.uint8)
    mask[0, 1] = 7
    put(tmp_path, images__a=image, masks__a=mask)
    data = open_dataset(tmp_path)
    assert data.classes.names == ("background", "foreground") and data[0].truth.areas().tolist() == [12, 12]
    mask[0, 1, 0] = 255
    mask[0, 1, 1] = 2
    put(tmp_path, masks__a=mask.astype(np.float64))  # whole numbers, as some programs store them
    data = open_dataset(tmp_path)
    assert len(data.classes) == 8 and (data[0].truth.class_map() == VOID).sum() == 4


def test_names_of_masks_may_say_so(tmp_path):
    image = np.zeros((1, 2, 3, 4), np.int16)
    put(tmp_path, Images__sub10=image, Images__sub9=image, labels__sub9_seg=image, labels__sub10=image)
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b"]))
    data = volume.read(tmp_path)
    assert data.keys == ("sub9", "sub10") and data.classes.names == ("a", "b")


def test_a_single_file_is_an_image(tmp_path):
    write_volume(tmp_path / "head.nrrd", np.ones((1, 2, 3, 4), np.int16), Grid((2, 3, 4), (3.0, 2.0, 1.0)))
    assert volume.matches(tmp_path / "head.nrrd") and not volume.matches(tmp_path)
    [only] = open_dataset(tmp_path / "head.nrrd")
    assert only.key == "head" and only.truth is None and only.grid.spacing_mm == (3, 2, 1)


# By a law


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5)])
def test_all_comes_back(tmp_path, shape):
    written = [sample("a", shape), sample("bb", shape)]
    volume.write(tmp_path / "set", written)
    data = open_dataset(tmp_path / "set")
    assert data.classes == CLASSES and data.keys == ("a", "bb")
    for before, after in zip(written, data, strict=True):
        assert np.array_equal(before.image, after.image) and before.image.dtype == after.image.dtype
        assert np.array_equal(before.truth.planes == VOID, after.truth.planes == VOID)
        for index, number in enumerate(after.truth.instance_ids):
            same = (before.truth.class_ids == after.truth.class_ids[index]) & (before.truth.instance_ids == number)
            assert np.array_equal(before.truth.mask(int(np.flatnonzero(same)[0])), after.truth.mask(index))
        if before.grid.affine is not None:
            assert np.allclose(before.grid.affine, after.grid.affine, atol=1e-5)
    for file in (tmp_path / "set" / "masks").iterdir():
        assert np.allclose(read_volume(file)[1].affine, data[0].grid.affine, atol=1e-6)


def test_regions_come_back_with_their_numbers(tmp_path):
    classes = Classes.of(["whole", "core"], regions=[[1, 900], [900]])
    masks = np.random.default_rng(0).random((2, 3, 4, 5)) < 0.5
    masks[1] &= masks[0]
    truth = Segmentation.regions(masks, classes)
    volume.write(tmp_path / "set", [Sample("a", np.zeros((1, 3, 4, 5), np.float32), sample("a").grid, truth)])
    [again] = open_dataset(tmp_path / "set")
    assert again.truth.classes == classes and np.array_equal(again.truth.masks(), masks)
    assert {*np.unique(read_volume(tmp_path / "set" / "masks" / "a.nii.gz")[0])} == {0, 1, 900}


def test_a_writer_that_was_stopped_goes_on(tmp_path):
    written = {key: sample(key) for key in ("a", "bb", "ccc")}
    seen = []

    def load(key):
        seen.append(key)
        if key == "bb" and seen.count(key) == 1:
            raise KeyboardInterrupt
        return written[key]

    data = Dataset("here", CLASSES, tuple(written), load)
    with pytest.raises(KeyboardInterrupt):
        volume.write(tmp_path / "set", data)
    volume.write(tmp_path / "set", data)
    assert seen == ["a", "bb", "bb", "ccc"] and volume.read(tmp_path / "set").keys == data.keys


def test_without_images(tmp_path, caplog):
    volume.write(tmp_path / "set", [replace(sample("a"), image=np.zeros((0, 3, 4, 5), np.uint8))])
    [only] = open_dataset(tmp_path / "set")
    assert only.image.shape == (0, 3, 4, 5) and "holds masks and no images" in caplog.text
    assert np.allclose(only.grid.affine, AFFINE)


def test_one_file(tmp_path):
    alone = replace(sample("a"), truth=None)
    volume.write(tmp_path / "a.mha", [alone])
    assert np.array_equal(volume.read(tmp_path / "a.mha")[0].image, alone.image)
    with pytest.raises(OutputError, match="exists"):
        volume.write(tmp_path / "a.mha", [alone])
    with pytest.raises(OutputError, match="not for several; give a folder"):
        volume.write(tmp_path / "b.mha", [alone, alone])
    with pytest.raises(OutputError, match="holds the image only; give a folder"):
        volume.write(tmp_path / "b.mha", [sample("a")])


# By its messages


def test_grids_that_differ_are_told(tmp_path):
    image, mask = np.zeros((1, 2, 3, 4), np.float32), np.zeros((1, 2, 3, 4), np.uint8)
    put(tmp_path, images__a=image, masks__a=mask)
    place = tmp_path / "masks" / "a.nii.gz"
    for grid, array, message in (
        (Grid((2, 3, 4), (2.5, 0.7, 0.6)), mask, "one shape but lie .* voxels apart"),
        (Grid((2, 3, 4), (2.5, 0.7, 0.5), AFFINE + 1e-2 * np.eye(4, k=3)), mask, "one shape but lie 0.02 voxels apart"),
        (Grid((2, 4, 3)), mask.reshape(1, 2, 4, 3), "is 2 x 3 x 4, .* is 2 x 4 x 3 .*export the mask again"),
        (Grid((6, 4)), mask.reshape(1, 6, 4), r"is 6 x 4 \(3 and 2 axes"),
    ):
        write_volume(place, array, grid)
        with pytest.raises(FormatError, match=message) as error:
            volume.read(tmp_path)[0]
        assert str(place) in str(error.value) and str(tmp_path / "images" / "a.nii.gz") in str(error.value)
    write_volume(place, mask, Grid((2, 3, 4), (2.5, 0.7, 0.5), AFFINE + 1e-4 * np.eye(4, k=3)))
    assert volume.read(tmp_path)[0].truth is not None


def test_partners_that_are_missing_are_told(tmp_path):
    image = np.zeros((1, 2, 3, 4), np.uint8)
    put(tmp_path, images__a=image, images__b=image, masks__a=image)
    with pytest.raises(FormatError, match=r"b.nii.gz has no mask of its name, 1 of 2 have none \(b\); add them"):
        volume.read(tmp_path)
    put(tmp_path, masks__b=image, masks__c=image)
    with pytest.raises(FormatError, match="c.nii.gz has no image of its name"):
        volume.read(tmp_path)
    write_volume(tmp_path / "images" / "a.nrrd", image, Grid((2, 3, 4)))
    with pytest.raises(FormatError, match="have one name"):
        volume.read(tmp_path)


def test_pairs_of_two_files_are_told_and_the_remedy_helps(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    values = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Pair(values % 3, np.eye(4)), tmp_path / folder / "a.img")
    for folder in ("masks", "images"):
        with pytest.raises(FormatError, match=rf"{folder}/a.hdr is half of a pair .*nibabel.Nifti1Image.from_image"):
            open_dataset(tmp_path)
        pair = nibabel.load(tmp_path / folder / "a.img")
        nibabel.Nifti1Image.from_image(pair).to_filename(tmp_path / folder / "a.nii.gz")
        for suffix in (".hdr", ".img"):
            (tmp_path / folder / f"a{suffix}").unlink()
    assert np.array_equal(open_dataset(tmp_path)[0].image[0], (values % 3).T)


def test_files_that_may_name_the_classes_are_told(tmp_path, caplog):
    image = np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4)
    put(tmp_path, images__a=image, masks__a=image % 3)
    (tmp_path / "masks" / "a_dseg.tsv").write_text("index\tname")
    (tmp_path / "dataset.json").write_text("{}")
    assert len(open_dataset(tmp_path).classes) == 3
    for name in ("a_dseg.tsv", "dataset.json"):
        assert f"{name} may name the classes, and is not read; write them into classes.json" in caplog.text
    caplog.clear()
    (tmp_path / "classes.json").write_text('["a", "b", "c"]')
    assert open_dataset(tmp_path).classes.names == ("a", "b", "c") and not caplog.records


def test_masks_that_are_none_are_told(tmp_path):
    image = np.zeros((1, 2, 3, 4), np.uint8)
    for mask, message in (
        (np.full((1, 2, 3, 4), 0.5), "holds fractions"),
        (np.arange(-2, 22, dtype=np.int16).reshape(1, 2, 3, 4), "holds 2 negative numbers, -2..-1; .*renumber its classes"),
        (np.arange(48, dtype=np.uint8).reshape(2, 2, 3, 4), "holds 2 masks that differ, .*nibabel.four_to_three"),
    ):
        put(tmp_path, images__a=image, masks__a=mask)
        with pytest.raises(FormatError, match=message):
            volume.read(tmp_path)
    with pytest.raises(FormatError, match="neither a volume file"):
        volume.read(tmp_path / "nothing")
    (tmp_path / "empty" / "masks").mkdir(parents=True)
    with pytest.raises(FormatError, match="has no folder of masks that holds volumes"):
        volume.read(tmp_path / "empty")
