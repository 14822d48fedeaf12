import numpy as np
import pytest

from segwright.core import Grid
from segwright.core.errors import FormatError
from segwright.formats.geojson_places import pixels_of, placed_on, to_map
from segwright.formats.map_systems import DEGREES, MapSystem, moved

WEB, OWN = MapSystem("EPSG:3857"), MapSystem(None, "my plane")
NORTH_UP = np.array([[0, 10.0, 1_565_435], [-10.0, 0, 6_886_995], [0, 0, 1]])  # from (row, column) of a centre to x, y
GRID = Grid((64, 80), None, NORTH_UP)
PIXELS = np.array([[10.0, 10], [40, 10], [40, 30], [10, 30]])
MAP = to_map(PIXELS, NORTH_UP)
IN_DEGREES = moved(MAP, WEB, DEGREES, "here")


def place(points, system=WEB, crs=None, may_be_pixels=False):
    return placed_on(GRID, system, crs, [points], "here", may_be_pixels=may_be_pixels)


# By hand


def test_places_of_the_map_are_pixels():
    assert to_map(np.array([[0.0, 0.0]]), NORTH_UP).tolist() == [[1_565_430.0, 6_887_000.0]]
    assert place(MAP).pixels(MAP).tolist() == PIXELS.tolist()
    assert to_map(PIXELS, None) is PIXELS


@pytest.mark.parametrize(
    ("points", "system", "crs", "is_qupath"),
    [
        (MAP, WEB, None, False),
        (MAP, WEB, WEB, False),
        (MAP, OWN, None, False),
        (MAP, OWN, WEB, False),  # that the image does not say its system does no harm where both meet
        (IN_DEGREES, WEB, None, False),
        (IN_DEGREES, WEB, DEGREES, False),
        (IN_DEGREES, WEB, MapSystem("EPSG:4326"), False),
        (moved(MAP, WEB, MapSystem("EPSG:32633"), "here"), WEB, MapSystem("EPSG:32633"), False),
        (PIXELS, WEB, None, True),
        (IN_DEGREES, WEB, DEGREES, True),
    ],
)
def test_each_system_leads_to_the_same_pixels(points, system, crs, is_qupath):
    found = place(points, system, crs, is_qupath)
    np.testing.assert_allclose(found.pixels(points), PIXELS, atol=1e-4)
    assert not found.is_swapped


@pytest.mark.parametrize(("points", "crs"), [(IN_DEGREES, None), (IN_DEGREES, DEGREES), (MAP, None), (MAP, WEB)])
def test_swapped_axes_are_seen(points, crs):
    assert place(points[:, ::-1], crs=crs).is_swapped and not place(points, crs=crs).is_swapped


def test_labels_of_another_place_lie_outside():
    assert place(MAP + 1e5, crs=WEB).pixels(MAP + 1e5).min() < -100  # the file says where it is, and that is not here
    far = np.array([[200.0, 95.0], [14, 52], [201, 96]])  # in part nowhere on Earth
    assert (place(far, crs=DEGREES).pixels(far) == 1e9).any()
    assert placed_on(GRID, WEB, None, [], "here", may_be_pixels=False).pixels(MAP).tolist() == PIXELS.tolist()


# By its messages


def test_what_cannot_be_told_names_both_systems():
    around = r"its image lies in {} around \(1565830, 6886680\): they do not meet"
    for points, system, crs, said in (
        (
            IN_DEGREES,
            OWN,
            None,
            r"places without crs, so in degrees, from \(14\.\d+, 52\.\d+\) to .*\('my plane'\)",
        ),
        (MAP + 1e5, WEB, None, r"places without crs, from \(1665530, .*EPSG:3857"),
        (IN_DEGREES, OWN, DEGREES, r"places in OGC:CRS84, .*a system of its own"),
        (PIXELS, WEB, None, None),
        (MAP, WEB, DEGREES, r"places in OGC:CRS84, from \(1565530, .*EPSG:3857"),  # the system is named wrongly
    ):
        if said is None:
            assert place(points, system, crs).source == DEGREES  # as RFC 7946 has it, and far away
            continue
        with pytest.raises(FormatError, match=f"here has {said}"):
            place(points, system, crs)
    with pytest.raises(FormatError, match=around.format(r"a system of its own \('my plane'\)")):
        place(IN_DEGREES, OWN)
    with pytest.raises(
        FormatError, match="here has places in EPSG:3857, and its image does not say where it lies; give the GeoTIFF"
    ):
        pixels_of(Grid((4, 6)), WEB, "here")
