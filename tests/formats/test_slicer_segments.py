"""Segments that a .seg.nrrd names: by their names, in layers that may overlap."""

import gzip
import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from segwright.codecs.volume_file import write_volume
from segwright.core import Classes, Grid, Segmentation
from segwright.core.errors import FormatError
from segwright.formats import open_dataset, volume
from segwright.formats.slicer_segments import Segment, classes_of_segments, segments_of

SHAPE = (2, 3, 4)
TAGS = "Segmentation.Status:completed|TerminologyEntry:General~SCT^85756007^Tissue~SCT^10200004^Liver~^^~Anatomy~^^~^^|"


def put(path, layers, said, *, origin="(0,0,0)", line="\n"):
    """A .seg.nrrd as 3D Slicer writes it: layers uint8 (P, D, H, W), and what it says of its segments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = np.asarray(layers, np.uint8)
    sides = " ".join(map(str, layers.shape[:0:-1]))
    kinds, directions = "domain domain domain", "(0.5,0,0) (0,0.7,0) (0,0,2.5)"
    if len(layers) > 1:
        sides, kinds, directions = f"{len(layers)} {sides}", f"list {kinds}", f"none {directions}"
    lines = [
        *("NRRD0004", "type: unsigned char", f"dimension: {3 + (len(layers) > 1)}", "space: left-posterior-superior"),
        *(f"sizes: {sides}", f"space directions: {directions}", f"kinds: {kinds}", f"space origin: {origin}"),
        *("encoding: gzip", *(f"{key}:={value}" for key, value in said.items()), "Segmentation_MasterRepresentation:=Binary"),
    ]
    stored = np.moveaxis(layers, 0, -1) if len(layers) > 1 else layers[0]
    path.write_bytes(line.join([*lines, "", ""]).encode() + gzip.compress(np.ascontiguousarray(stored).tobytes()))


def said(*segments, layers=None):
    """Name and number of each segment, as the header says them."""
    layers = layers or [0] * len(segments)
    return {
        f"Segment{index}_{key}": value
        for index, ((name, number), layer) in enumerate(zip(segments, layers, strict=True))
        for key, value in (("ID", f"S_{index}"), ("Name", name), ("LabelValue", number), ("Layer", layer))
    }


def image(root, name, shape=SHAPE):
    affine = np.array([[0, 0, 0.5, 0], [0, 0.7, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1.0]])
    write_volume(root / "images" / f"{name}.nrrd", np.zeros((1, *shape), np.int16), Grid(shape, (2.5, 0.7, 0.5), affine))


@pytest.fixture
def numbers():
    """1 in a row of the first slice, 2 in the second slice."""
    array = np.zeros((1, *SHAPE), np.uint8)
    array[0, 0, 0], array[0, 1] = 1, 2
    return array


# By hand


def test_names_decide_and_not_numbers(tmp_path, numbers):
    for name in "abc":
        image(tmp_path, name)
    put(tmp_path / "masks/a.seg.nrrd", numbers, said(("Liver", 1), ("Tumor", 2)))
    put(tmp_path / "masks/b.seg.nrrd", 3 - numbers - 3 * (numbers == 0), said(("Tumor", 1), ("Liver", 2)), line="\r\n")
    put(tmp_path / "masks/c.seg.nrrd", 7 * numbers, said(("Tumor", 14), ("Liver", 7)))
    data = open_dataset(tmp_path)
    assert data.classes.names == ("background", "Liver", "Tumor")
    first = data[0].truth.class_map()
    assert np.array_equal(first, numbers[0])
    for sample in data:
        assert np.array_equal(sample.truth.class_map(), first) and not sample.left_out


def test_layers_are_planes(tmp_path, numbers):
    image(tmp_path, "a")
    overlap = np.stack([numbers[0] > 0, numbers[0] == 2])
    put(tmp_path / "masks/a.seg.nrrd", overlap, said(("Liver", 1), ("Tumor", 1), layers=[0, 1]))
    data = open_dataset(tmp_path)
    truth = data[0].truth
    assert truth.classes.names == ("background", "Liver", "Tumor") and len(truth.planes) == 2
    found = {truth.classes.names[k]: truth.mask(i) for i, k in enumerate(truth.class_ids)}
    assert np.array_equal(found["Liver"], overlap[0]) and np.array_equal(found["Tumor"], overlap[1])
    assert np.array_equal(found["background"], ~overlap.any(axis=0))
    apart = np.stack([numbers[0] == 1, numbers[0] == 2])
    put(tmp_path / "masks/a.seg.nrrd", apart, {"Segment0_Name": "Liver", "Segment1_Name": "Tumor"})  # as old files have it
    truth = open_dataset(tmp_path)[0].truth
    assert len(truth.planes) == 1 and np.array_equal(truth.class_map(), numbers[0])


def test_two_segments_of_one_name_are_one_class(tmp_path, numbers):
    image(tmp_path, "a")
    put(tmp_path / "masks/a.seg.nrrd", numbers, said(("Node", 1), ("node ", 2)))
    truth = open_dataset(tmp_path)[0].truth
    assert truth.classes.names == ("background", "Node") and truth.areas().tolist() == [8, 16]
    both = np.stack([numbers[0] > 0, numbers[0] == 2])  # one inside the other
    put(tmp_path / "masks/a.seg.nrrd", both, said(("Node", 1), ("Node", 1), layers=[0, 1]))
    assert open_dataset(tmp_path)[0].truth.areas().tolist() == [8, 16]


def test_names_that_differ_in_capitals_are_one_and_it_is_said(tmp_path, numbers, caplog):
    for name, spelt in (("a", "Liver"), ("b", " liver")):
        image(tmp_path, name)
        put(tmp_path / f"masks/{name}.seg.nrrd", numbers, said((spelt, 1), ("Tumor", 2)))
    assert open_dataset(tmp_path).classes.names == ("background", "Liver", "Tumor")
    assert "names of segments are taken for one: 'Liver', 'liver'" in caplog.text


def test_without_a_name_the_type_counts_then_the_id(tmp_path, numbers):
    path = tmp_path / "a.seg.nrrd"
    put(path, numbers, {"Segment0_Tags": TAGS, "Segment0_LabelValue": 1, "Segment0_Color": "0.5 1 0", "Segment1_ID": "S_7",
                        "Segment1_LabelValue": 2})  # fmt: skip
    segments = segments_of(path)
    assert segments == (Segment("Liver", 0, 1, (128, 255, 0)), Segment("S_7", 0, 2, None))
    classes = classes_of_segments(segments)
    assert classes.names == ("background", "Liver", "S_7") and classes.colors[1] == (128, 255, 0)
    assert segments_of(tmp_path / "a.nii.gz") == ()


def test_a_box_cut_out_of_the_image_lies_in_its_place(tmp_path):
    image(tmp_path, "a", (4, 5, 6))
    put(tmp_path / "masks/a.seg.nrrd", np.ones((1, 2, 3, 1)), said(("Liver", 1)), origin="(1.5,0.7,2.5)")
    expected = np.zeros((4, 5, 6), int)
    expected[1:3, 1:4, 3] = 1
    assert np.array_equal(open_dataset(tmp_path)[0].truth.class_map(), expected)
    for origin in ("(1.6,0.7,2.5)", "(3,0.7,2.5)"):  # between voxels, and beyond the image
        put(tmp_path / "masks/a.seg.nrrd", np.ones((1, 2, 3, 1)), said(("Liver", 1)), origin=origin)
        with pytest.raises(FormatError, match="export the mask again on the grid of the image"):
            open_dataset(tmp_path)[0]


def test_a_segment_without_a_voxel_is_counted(tmp_path, numbers):
    image(tmp_path, "a")
    put(tmp_path / "masks/a.seg.nrrd", numbers, said(("Liver", 1), ("Tumor", 2), ("Vessel", 3)))
    assert open_dataset(tmp_path)[0].left_out == {"segments without a voxel": 1}


def test_a_classes_json_of_the_same_names_gives_order_and_colours(tmp_path, numbers):
    image(tmp_path, "a")
    put(tmp_path / "masks/a.seg.nrrd", numbers, said(("liver", 2), ("Tumor", 1)))
    content = {"classes": ["Tumor", "Vessel", "Liver"], "palette": [[1, 2, 3]] * 3}
    (tmp_path / "classes.json").write_text(json.dumps(content))
    data = open_dataset(tmp_path)
    truth = data[0].truth
    assert data.classes.names == ("Tumor", "Vessel", "Liver") and truth.class_ids.tolist() == [0, 2]
    assert np.array_equal(truth.class_map(), np.choose(numbers[0], [-1, 0, 2])) and (truth.planes >= 0).all()


def test_a_classes_json_of_other_names_decides_by_number(tmp_path, numbers, caplog):
    for name in "ab":
        image(tmp_path, name)
        put(tmp_path / f"masks/{name}.seg.nrrd", numbers, said(("Liver", 1), ("Tumor", 2)))
    (tmp_path / "classes.json").write_text('["other", "organ", "lesion"]')
    with caplog.at_level(logging.WARNING):
        data = open_dataset(tmp_path)
    assert "all masks are read by the numbers there, not by names" in caplog.text
    assert np.array_equal(data[0].truth.class_map(), numbers[0])


# By a law


def test_a_mask_that_is_written_is_read_by_its_names(tmp_path):
    classes = Classes.of(["background", "Zebra", "ape"], colors=[(0, 0, 0), (10, 200, 30), (1, 2, 3)])
    class_map = np.random.default_rng(0).integers(-1, 3, SHAPE)
    image(tmp_path, "a")
    source = volume.read(tmp_path / "images/a.nrrd")
    source = replace(source, image_files={"a": tmp_path / "images/a.nrrd"})
    path = volume.write_mask(tmp_path / "masks", replace(source[0], truth=Segmentation.semantic(class_map, classes)), source)
    assert [segment.name for segment in segments_of(path)] == ["Zebra", "ape", "void"]
    data = open_dataset(tmp_path)
    assert data.classes.names == ("background", "ape", "Zebra") and data.classes.colors[2] == (10, 200, 30)
    assert np.array_equal(data[0].truth.class_map(), np.array([-1, 0, 2, 1])[class_map + 1])
    written = Segmentation.semantic(np.maximum(class_map, 0), Classes.of(["sky", "b", "c"]))  # 0 can be no segment
    assert segments_of(volume.write_mask(tmp_path / "masks", replace(source[0], truth=written), source)) == ()


# By its messages


def test_numbers_that_mean_two_things_are_told(tmp_path, numbers):
    for name, segments in (("a", [("Liver", 1), ("Tumor", 2)]), ("b", [("Tumor", 1), ("Liver", 2)])):
        image(tmp_path, name)
        put(tmp_path / f"masks/{name}.seg.nrrd", numbers, said(*segments))
    (tmp_path / "classes.json").write_text('["other", "organ", "lesion"]')
    with pytest.raises(FormatError, match="b.seg.nrrd names number 1 of layer 0 'Tumor', .*give its classes the names of"):
        open_dataset(tmp_path)
    (tmp_path / "classes.json").write_text('["background", "Liver", "Tumor"]')
    assert np.array_equal(open_dataset(tmp_path)[1].truth.class_map(), np.choose(numbers[0], [0, 2, 1]))


def test_some_masks_without_names_are_told(tmp_path, numbers):
    for name in "ab":
        image(tmp_path, name)
    put(tmp_path / "masks/a.seg.nrrd", numbers, said(("Liver", 1), ("Tumor", 2)))
    put(tmp_path / "masks/b.seg.nrrd", numbers, {})
    with pytest.raises(
        FormatError, match="b.seg.nrrd does not say what its numbers mean, .*write the classes and their numbers"
    ):
        open_dataset(tmp_path)
    (tmp_path / "classes.json").write_text('{"classes": ["background", "Tumor", "Liver"], "values": [0, 2, 1]}')
    first, second = open_dataset(tmp_path)
    assert np.array_equal(first.truth.class_map(), second.truth.class_map())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Segment1_LabelValue": 1}, "segment 'Tumor' has the number of 'Liver'"),
        ({"Segment1_Layer": 1}, "segment 'Tumor' has layer 1 of 1"),
        ({"Segment1_LabelValue": "two"}, "segment 'Tumor' is damaged .*save it again"),
        ({"Segment1_LabelValue": 0}, "segment 'Tumor' is damaged"),
        ({"Segment1_Color": "red"}, "segment 'Tumor' is damaged"),
        ({"Segment1_LabelValue": 9}, r"the number 2 at 12 of 24 voxels, which none of its segments has \(Liver 1, Tumor 9\)"),
    ],
)
def test_damaged_segments_are_told(tmp_path, numbers, changed, message):
    image(tmp_path, "a")
    put(tmp_path / "masks/a.seg.nrrd", numbers, said(("Liver", 1), ("Tumor", 2)) | changed)
    with pytest.raises(FormatError, match=message):
        open_dataset(tmp_path)[0]
