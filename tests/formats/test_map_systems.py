import builtins
import math
import struct

import numpy as np
import pytest
import tifffile

from segwright.core.errors import FormatError, MissingExtraError
from segwright.formats.map_systems import DEGREES, MapSystem, moved, of_geojson, of_geotiff

WEB, UTM = MapSystem("EPSG:3857"), MapSystem("EPSG:32633")
RADIUS = 6_378_137.0  # of the sphere of web maps, in metres


def geotiff(path, *keys, texts=""):
    """A TIFF with a place and these keys: (key, tag, count, value)."""
    table = (1, 1, 0, len(keys), *(number for key in keys for number in key))
    tags = [(33550, 12, 3, (1.0, 1.0, 0.0)), (33922, 12, 6, (0.0,) * 6), (34735, 3, len(table), table)]
    tags += [(34737, 2, len(texts) + 1, texts)] if texts else []
    tifffile.imwrite(path, np.zeros((4, 6), np.uint8), extratags=[(*tag, True) for tag in tags])
    return path


# By hand


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ([(1024, 0, 1, 1), (2048, 0, 1, 4326), (3072, 0, 1, 32633)], "EPSG:32633"),
        ([(1024, 0, 1, 2), (2048, 0, 1, 4258)], "EPSG:4258"),
        ([(3072, 0, 1, 3857)], "EPSG:3857"),
        ([(2048, 0, 1, 4326)], "EPSG:4326"),
        ([(1024, 0, 1, 1), (3072, 0, 1, 32767)], None),
        ([(1025, 0, 1, 1)], None),
    ],
)
def test_the_system_of_a_geotiff(tmp_path, keys, name):
    assert of_geotiff(geotiff(tmp_path / "a.tif", *keys)).name == name


def test_a_system_without_a_number_is_called_by_its_text(tmp_path):
    keys = [(1024, 0, 1, 1), (1026, 34737, 6, 0), (3072, 0, 1, 32767), (3073, 34737, 9, 6)]
    system = of_geotiff(geotiff(tmp_path / "a.tif", *keys, texts="files|my plane|"))
    assert system == MapSystem(None, "my plane") and str(system) == "a system of its own ('my plane')"
    assert str(of_geotiff(geotiff(tmp_path / "b.tif"))) == "a system that it does not name"


@pytest.mark.parametrize(
    ("crs", "name"),
    [
        ({"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}, "EPSG:3857"),
        ({"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG:6.9:3857"}}, "EPSG:3857"),
        ({"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}, "OGC:CRS84"),
        ({"type": "name", "properties": {"name": "http://www.opengis.net/def/crs/EPSG/0/3857"}}, "EPSG:3857"),
        ({"type": "name", "properties": {"name": "epsg:3857"}}, "EPSG:3857"),
        ({"type": "EPSG", "properties": {"code": 3857}}, "EPSG:3857"),
    ],
)
def test_the_spellings_of_crs(crs, name):
    assert of_geojson(crs, "here") == MapSystem(name)


def test_web_metres_by_their_formula():
    longitude, latitude = np.array([14.0625, -3.5, 0.0]), np.array([52.5, -40.0, 0.0])
    x, y = RADIUS * np.radians(longitude), RADIUS * np.log(np.tan(math.pi / 4 + np.radians(latitude) / 2))
    metres = moved(np.stack([longitude, latitude], axis=1), DEGREES, WEB, "here")
    np.testing.assert_allclose(metres, np.stack([x, y], axis=1), atol=1e-6)


# By a law


@pytest.mark.parametrize("there", [WEB, UTM, MapSystem("EPSG:2154"), MapSystem("EPSG:4258")])
def test_there_and_back(there):
    points = np.array([[14.0, 52.0], [15.5, 48.25]])
    np.testing.assert_allclose(moved(moved(points, DEGREES, there, "here"), there, DEGREES, "here"), points, atol=1e-7)


def test_what_is_the_same_is_not_moved():
    points = np.array([[1.0, 2.0]])
    assert moved(points, WEB, WEB, "here") is points and moved(points, MapSystem("EPSG:4326"), DEGREES, "here") is points
    assert MapSystem("EPSG:4326").urn == DEGREES.urn == "urn:ogc:def:crs:OGC:1.3:CRS84"
    assert of_geojson({"properties": {"name": UTM.urn}}, "here") == UTM
    assert not MapSystem(None).is_like(MapSystem(None))


# By its messages


def test_what_is_refused(tmp_path, monkeypatch):
    for crs in ({"type": "link", "properties": {"href": "a"}}, {"properties": {"name": "my plane"}}, 7):
        with pytest.raises(FormatError, match="crs is .*, which names no system; write a name such as urn:ogc:def:crs:EPSG"):
            of_geojson(crs, "here")
    assert of_geojson(None, "here") is None
    with pytest.raises(FormatError, match="is in EPSG:999999, its image in EPSG:3857, and PROJ knows no way .*; export the"):
        moved(np.zeros((1, 2)), MapSystem("EPSG:999999"), WEB, "here")
    load = builtins.__import__

    def without_pyproj(name, *more):
        if name.startswith("pyproj"):
            raise ImportError(name)
        return load(name, *more)

    monkeypatch.setattr(builtins, "__import__", without_pyproj)
    with pytest.raises(MissingExtraError, match=r"is in EPSG:2154, its image in EPSG:3857: .*pip install 'segwright\[geo\]'"):
        moved(np.zeros((1, 2)), MapSystem("EPSG:2154"), WEB, "here")


def test_keys_that_are_cut_short(tmp_path):
    path = geotiff(tmp_path / "a.tif", (3072, 0, 1, 3857))
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<HHL", 34735, 3, 8), struct.pack("<HHL", 34735, 3, 6)))
    assert of_geotiff(path) == MapSystem(None)
