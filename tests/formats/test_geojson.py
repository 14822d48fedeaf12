import json
import pickle

import numpy as np
import pytest
import tifffile

from segwright.codecs.image_writer import write_image
from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import geojson
from segwright.formats.geojson import matches, read, write
from segwright.formats.map_systems import DEGREES, MapSystem, moved

AFFINE = np.array([[0, 0.25, 4_500_000.125], [-0.25, 0, 5_400_000.875], [0, 0, 1]])  # of (row, column): 25 cm pixels, north up


def ring(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(*rings, kind="Polygon", **properties):
    geometry = {"type": kind, "coordinates": [[one] for one in rings] if kind == "MultiPolygon" else list(rings)}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(path, *features, alone=False, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = list(features) if alone else {"type": "FeatureCollection", "features": list(features)} | more
    path.write_text(json.dumps(content))
    return path.parent


def image_at(path, height=4, width=6):
    return write_image(path, np.zeros((3, height, width), np.uint8))


# By hand


def test_classes_under_a_name_that_is_not_known_are_told(tmp_path, caplog):
    image_at(tmp_path / "a")
    collection(tmp_path / "a.geojson", feature(ring(0, 0, 2, 2), type="roof"), feature(ring(3, 0, 5, 2), type="road"))
    assert read(tmp_path).classes.names == ("object",)
    assert "no feature says its class by classification, class, label or name (but it has type)" in caplog.text
    caplog.clear()
    collection(tmp_path / "a.geojson", feature(ring(0, 0, 2, 2), instance_id=3, objectType="annotation"))
    assert read(tmp_path).classes.names == ("object",) and not caplog.text


@pytest.mark.parametrize("alone", [False, True])
def test_features_as_qupath_writes_them(tmp_path, alone):
    image_at(tmp_path / "a")
    features = [
        feature(
            ring(0, 0, 3, 3), ring(1, 1, 2, 2), classification={"name": "Tumor", "color": [200, 0, 0]}, name="Annotation 1"
        ),
        feature(
            ring(4, 0, 5, 1), ring(5, 3, 6, 4), kind="MultiPolygon", classification={"name": "Stroma", "colorRGB": -16776961}
        ),
        feature(ring(3, 3, 4, 4), classification={"name": "Ignore*"}),
        feature(ring(0, 3, 1, 4)) | {"properties": None},
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {"class": "cell"}},
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [2, 2]}, "properties": {"class": "Stroma"}},
        {"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": []}, "properties": {}},
        {"type": "Feature", "geometry": None, "properties": {}},
    ]
    data = read(collection(tmp_path / "a.geojson", *features, alone=alone))
    truth = data[0].truth
    assert data.keys == ("a",) and data.classes.names == ("object", "Stroma", "Tumor")
    assert data.classes.colors[1:] == ((0, 0, 255), (200, 0, 0)) and truth.instance_ids.tolist() == [1, 2, 3]
    assert truth.class_ids.tolist() == [2, 1, 0]
    assert data[0].left_out == {
        "drawn as a line or as points": 2,
        "of the kind 'GeometryCollection'": 1,
        "of the kind 'no geometry'": 1,
    }
    assert truth.planes.tolist() == [[[1, 1, 1, 0, 2, 0], [1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [3, 0, 0, -1, 0, 2]]]


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"class": "a", "label": "b", "name": "c"}, "a"),
        ({"label": "b", "name": "c"}, "b"),
        ({"name": "c", "class": None}, "c"),
        ({"class": 3}, "3"),
        ({"classification": "d", "class": "a"}, "d"),
        ({"classification": {"names": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"class": True, "label": ""}, "object"),
    ],
)
def test_the_name_of_a_class(tmp_path, properties, name):
    image_at(tmp_path / "a")
    assert read(collection(tmp_path / "a.geojson", feature(ring(0, 0, 1, 1), **properties))).classes.names == (name,)


@pytest.mark.parametrize(
    ("file", "image"), [("a", "a"), ("labels/a", "images/a"), ("a.png", "a"), ("labels/train/a", "train/a")]
)
def test_images_are_found_by_their_names(tmp_path, file, image):
    path = image_at(tmp_path / image)
    collection(tmp_path / f"{file}.geojson")
    data = read(tmp_path)
    assert list(data.image_files.values()) == [path]
    assert data.keys == ("train__a" if "train" in file else "a",)


def test_coordinates_of_a_map(tmp_path):
    image = tmp_path / "a.tif"
    place = [(33550, 12, 3, (0.25, 0.25, 0.0)), (33922, 12, 6, (0.0, 0.0, 0.0, 4_500_000.0, 5_400_001.0, 0.0))]
    keys = (34735, 3, 8, (1, 1, 0, 1, 1025, 0, 1, 1))  # the tie point is the corner of a pixel
    tifffile.imwrite(image, np.zeros((4, 6), np.uint8), extratags=[(*tag, True) for tag in (*place, keys)])
    west, north = 4_500_000, 5_400_001  # the corner: half a pixel before the centre of the first
    corners = ring(west + 0.25, north - 0.75, west + 1, north - 0.25)
    data = read(collection(tmp_path / "a.geojson", feature(corners, **{"class": "roof"})))
    assert data[0].truth.planes.tolist() == [[[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]]
    assert np.array_equal(data[0].grid.affine, AFFINE)
    write(tmp_path / "new", data)
    content = json.loads((tmp_path / "new/a.geojson").read_text())
    written = np.array(content["features"][0]["geometry"]["coordinates"][0])
    assert np.array_equal(written[0], written[-1]) and np.array_equal(np.unique(written, axis=0), np.unique(corners, axis=0))
    east, height = written[:-1].T - written[0][:, None]
    assert east @ np.roll(height, -1) - height @ np.roll(east, -1) > 0  # counterclockwise, as RFC 7946 asks
    assert np.array_equal(read(tmp_path / "new")[0].truth.planes, data[0].truth.planes)
    assert data.image_files["a"] == image
    (tmp_path / "new/a.tif").unlink()
    with pytest.raises(FormatError, match="has coordinates of a map, but no GeoTIFF says where its image lies"):
        _ = read(tmp_path / "new")[0]


def geotiff(path, number):
    """An image of 4 x 6 pixels of 10 m in the system with an EPSG number, its corner at (1565430, 6887000)."""
    keys = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, number)
    place = [(33550, 12, 3, (10.0, 10.0, 0.0)), (33922, 12, 6, (0.0, 0.0, 0.0, 1_565_430.0, 6_887_000.0, 0.0))]
    tags = [(*tag, True) for tag in (*place, (34735, 3, len(keys), keys))]
    tifffile.imwrite(path, np.zeros((4, 6), np.uint8), extratags=tags)
    return path


ON_MAP = [[1_565_440.0, 6_886_990.0], [1_565_470.0, 6_886_990.0], [1_565_470.0, 6_886_970.0], [1_565_440.0, 6_886_970.0]]
IN_DEGREES = moved(np.array(ON_MAP), MapSystem("EPSG:3857"), DEGREES, "here").tolist()


@pytest.mark.parametrize(
    ("corners", "crs"),
    [(ON_MAP, None), (ON_MAP, "urn:ogc:def:crs:EPSG::3857"), (IN_DEGREES, None), (IN_DEGREES, "urn:ogc:def:crs:OGC:1.3:CRS84")],
)
def test_labels_in_other_systems_than_the_image(tmp_path, corners, crs):
    geotiff(tmp_path / "a.tif", 3857)
    more = {} if crs is None else {"crs": {"type": "name", "properties": {"name": crs}}}
    data = read(collection(tmp_path / "a.geojson", feature([*corners, corners[0]], **{"class": "roof"}), **more))
    assert (
        data[0].truth.planes.tolist() == [[[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]] and not data[0].left_out
    )
    write(tmp_path / "new", data)
    assert json.loads((tmp_path / "new/a.geojson").read_text())["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::3857"
    assert np.array_equal(read(tmp_path / "new")[0].truth.planes, data[0].truth.planes)
    swapped = [[y, x] for x, y in (*corners, corners[0])]
    sample = read(collection(tmp_path / "a.geojson", feature(swapped, **{"class": "roof"}), **more))[0]
    assert len(sample.truth) == 0 and sample.left_out == {"outside the image, inside it with x and y swapped": 1}


def test_degrees_for_a_map_of_its_own_are_refused(tmp_path):
    geotiff(tmp_path / "a.tif", 32767)
    data = read(collection(tmp_path / "a.geojson", feature([*IN_DEGREES, IN_DEGREES[0]])))
    with pytest.raises(FormatError, match="a.geojson has places without crs, so in degrees, .* a system that it does not name"):
        data[0]
    image_at(tmp_path / "b")
    crs = {"type": "name", "properties": {"name": "EPSG:3857"}}
    collection(tmp_path / "b.geojson", feature(ring(0, 0, 1, 1)), crs=crs)
    with pytest.raises(FormatError, match="b.geojson has places in EPSG:3857, and its image does not say where it lies"):
        read(tmp_path).load("b")


def test_what_lies_outside_is_counted(tmp_path):
    image_at(tmp_path / "a")
    shapes = [feature(ring(1, 1, 2, 2)), feature(ring(9, 1, 12, 3), ring(10, 1, 11, 2)), feature([[0, 0], [1, 1]])]
    sample = read(collection(tmp_path / "a.geojson", *shapes))[0]
    assert len(sample.truth) == 1 and sample.left_out == {"outside the image": 1, "with fewer than three corners": 1}


def test_what_is_written_is_as_qupath_has_it(tmp_path):
    masks = np.zeros((2, 4, 6), bool)
    masks[0, :3, :3], masks[0, 1, 1] = True, False
    masks[1, 0, 5] = masks[1, 2, 5] = True
    truth = Segmentation.instances(masks, [0, 0], classes=Classes.of(["x"], colors=[(1, 2, 3)], is_thing=[True]))
    write(tmp_path / "new", [Sample.of("val__a", np.zeros((1, 4, 6), np.uint8), truth)])
    content = json.loads((tmp_path / "new/val/a.geojson").read_text())
    hole, parts = content["features"]
    assert content["type"] == "FeatureCollection" and hole["type"] == "Feature"
    assert hole["properties"]["classification"] == {"name": "x", "color": [1, 2, 3]}
    assert hole["geometry"]["type"] == "Polygon" and [len(one) for one in hole["geometry"]["coordinates"]] == [5, 5]
    assert parts["geometry"]["type"] == "MultiPolygon" and len(parts["geometry"]["coordinates"]) == 2


# By a law


def test_what_was_written_comes_back(tmp_path, hard_samples, assert_same):
    write(tmp_path / "new", iter(hard_samples))
    data = pickle.loads(pickle.dumps(read(tmp_path / "new")))
    assert matches(tmp_path / "new") and data.keys == tuple(sample.key for sample in hard_samples)
    assert data.classes == hard_samples[0].truth.classes
    for read_back, written in zip(data, hard_samples, strict=True):
        assert_same(read_back, written)


def test_on_a_map_the_truth_comes_back(tmp_path, hard_samples, assert_same, monkeypatch):
    monkeypatch.setattr(geojson, "image_grid", lambda path, shape: Grid(shape, None, AFFINE))
    monkeypatch.setattr(geojson, "of_geotiff", lambda path: MapSystem(None))
    write(tmp_path / "new", hard_samples[:8])
    assert '"coordinates": "map"' in (tmp_path / "new/train/a.001.geojson").read_text()
    for read_back, written in zip(read(tmp_path / "new"), hard_samples[:8], strict=True):
        assert_same(read_back, written)


def test_without_images_the_truth_comes_back(tmp_path, hard_samples, assert_same):
    bare = [Sample.of(one.key, one.image[:0], one.truth) for one in hard_samples[:4]]
    write(tmp_path / "new", bare)
    for read_back, written in zip(read(tmp_path / "new"), bare, strict=True):
        assert_same(read_back, written)


# By its messages


def test_what_is_no_geojson(tmp_path):
    assert not matches(tmp_path) and not matches(tmp_path / "nothing")
    with pytest.raises(FormatError, match="holds no .geojson .*it is empty"):
        read(tmp_path)
    with pytest.raises(FormatError, match="it is no folder"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (feature([[0], [1, 1]]), r"features\[0\].geometry.Polygon.coordinates\[0\]\[0\]: List should have at least 2 items"),
        (feature(3), r"coordinates\[0\]: Input should be a valid array"),
        (feature(ring(0, 0, 1, float("inf"))), r"Input should be a finite number"),
        (feature(ring(0, 0, 1, 1), instance_id=-2), "an object has the number -2"),
        ({"type": "Feature"}, r"features\[0\].geometry: Field required"),
    ],
)
def test_what_is_wrong_with_a_feature(tmp_path, wrong, message):
    image_at(tmp_path / "a")
    with pytest.raises(FormatError, match=f"a.geojson.*{message}"):
        _ = read(collection(tmp_path / "a.geojson", wrong))[0]


def test_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(FormatError, match="neither its image 'a' nor the size of that is known; add the image"):
        _ = read(collection(tmp_path / "a.geojson"))[0]
    image_at(tmp_path / "a")
    image_at(tmp_path / "a").rename(tmp_path / "a.jpg")
    image_at(tmp_path / "a")
    with pytest.raises(FormatError, match="a.geojson: its image may be .*a.jpg or .*a.png; rename or move one"):
        read(tmp_path)
    collection(tmp_path / "a.geojson", features=3)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(FormatError, match="a.geojson: features is no list"):
        read(tmp_path)
    void = Segmentation.semantic(np.array([[0, -1]]), Classes.of(["Ignore*"]))
    with pytest.raises(OutputError, match=r"'a' has void, which is called 'Ignore\*' here; rename that class"):
        write(tmp_path / "new", [Sample.of("a", np.zeros((1, 1, 2), np.uint8), void)])


def test_damaged_files_are_read_or_refused(tmp_path, hard_samples, mutations):
    write(tmp_path / "new", hard_samples[1:3])
    for number, name in enumerate(("a.001", "a.002")):
        for _ in mutations(tmp_path / f"new/train/{name}.geojson", 100, number):
            try:
                list(read(tmp_path / "new"))
            except FormatError as error:
                assert str(tmp_path) in str(error)
