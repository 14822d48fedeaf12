"""Formats that write the segmentation of one image as one file: their reader gives it back, and what they refuse."""

import numpy as np
import pytest

from segwright.codecs.image_file import read_image, read_mask
from segwright.codecs.image_writer import write_image
from segwright.codecs.volume_file import write_volume
from segwright.core import VOID, Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.errors import OutputError
from segwright.formats import mask_folder, readers, tiff, volume
from segwright.formats.label_encoding import write_classes

SHAPES = {"mask_folder": (9, 11), "tiff": (3, 9, 11), "volume": (3, 9, 11)}


def source_of(root, module, shape):
    """A data set of one image, in the folder images/, and its sample without truth."""
    image = np.random.default_rng(0).integers(0, 255, (1, *shape), dtype=np.uint8)
    if module is volume:
        path = root / "images" / "a.nii.gz"
        pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")
        write_volume(path, image, Grid(shape, (2.0, 1.0, 1.0)))
    else:
        path = write_image(root / "images" / "a", image)
    return Dataset(str(root), Classes.of(["nothing"]), ("a",), lambda key: None, {"a": path}), image


@pytest.mark.parametrize("count", [1, 2, 254, 255, 256, 400])
@pytest.mark.parametrize("name", SHAPES)
def test_the_reader_gives_the_class_map_back(tmp_path, name, count):
    module = readers()[name]
    source, image = source_of(tmp_path, module, SHAPES[name])
    class_map = np.random.default_rng(count).integers(VOID, count, SHAPES[name])
    class_map[..., 0, :3] = 0, VOID, count - 1
    classes = Classes.of([f"c{k}" for k in range(count)])
    grid = Grid(SHAPES[name], (2.0, 1.0, 1.0) if name == "volume" else None)
    sample = Sample("a", image, grid, Segmentation.semantic(class_map, classes))
    path = module.write_mask(tmp_path / "masks", sample, source)
    assert path == module.mask_path(tmp_path / "masks", "a", source) and path.is_file()
    write_classes(tmp_path / "classes.json", classes)
    [back] = module.read(tmp_path)
    assert np.array_equal(back.truth.class_map(), class_map) and back.truth.classes.names == classes.names


@pytest.mark.parametrize("name", SHAPES)
def test_objects_and_overlaps_are_refused(tmp_path, name):
    module, shape = readers()[name], SHAPES[name]
    source, image = source_of(tmp_path, module, shape)
    objects = Segmentation.instances(np.ones((1, *shape), bool), [0])
    regions = Segmentation(
        np.ones((2, *shape), np.int32), *(np.zeros(1, np.int32),) * 2, np.ones(1, np.float32), objects.classes
    )
    for truth, what in ((objects, "1 objects"), (regions, "segments that may overlap")):
        with pytest.raises(OutputError, match=f"'a' has {what}, which one map of classes cannot hold; write it as coco"):
            module.write_mask(tmp_path / "masks", Sample("a", image, Grid(shape), truth), source)
    assert not (tmp_path / "masks").exists()
    written = tmp_path / "remedy"
    (volume if len(shape) == 3 else mask_folder).write(written, [Sample("a", image, Grid(shape), objects)])
    assert (written / "masks").is_dir()


def test_colours_are_those_of_the_classes(tmp_path):
    classes = Classes.of(["a", "b"], colors=[(9, 8, 7), (1, 2, 3)])
    truth = Segmentation.semantic(np.array([[0, 1, VOID]]), classes)
    tiff.write_layers(tmp_path / "image.tif", np.zeros((1, 1, 3), np.uint8))
    source = Dataset("", classes, ("a",), lambda key: None, {"a": tmp_path / "image.tif"})
    for module in (mask_folder, tiff):
        path = module.write_mask(tmp_path, Sample.of("a", np.zeros((1, 1, 3), np.uint8), truth), source, palette=True)
        assert read_mask(path).tolist() == [[0, 1, 255]]
        assert np.nan_to_num(read_image(path)[:3, 0].T).tolist() == [[9, 8, 7], [1, 2, 3], [0, 0, 0]]  # void is nodata in TIFF


def test_each_such_format_has_both_functions():
    doors = {name for name, module in readers().items() if hasattr(module, "write_mask")}
    assert doors == {*SHAPES, "dicom", "ome_zarr"} and all(hasattr(readers()[name], "mask_path") for name in doors)
