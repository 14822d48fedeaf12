"""In which system of coordinates a GeoTIFF or a GeoJSON places things, and places from one system in another.

A GeoTIFF says it by keys (tag 34735): the EPSG number of a projected (3072) or geographic (2048) system, or a text about one
that has no number. A GeoJSON is in degrees of longitude and latitude (WGS 84, RFC 7946), unless it has the older member `crs`.
Places are (x, y), also where the authority of a system puts latitude or north first. PROJ is asked, and fetches nothing.

Axes: V places.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.errors import FormatError, MissingExtraError
from segwright.formats.tiff import KEYS, geo_tags

TEXTS = 34737  # the tag of the texts that keys point to
MODEL, GEOGRAPHIC, PROJECTED = 1024, 2048, 3072  # keys; the first tells which of the others counts
IS_GEOGRAPHIC = 2  # what the model may be
CITATIONS = (3073, 1026, 2049)  # keys of texts about a system, the most special first
USER_DEFINED = 32767  # instead of a number
NAMED = re.compile(r"(?:^|[:/])(EPSG|OGC|ESRI)[:/](?:[\d.]*[:/])?(\w+)$", re.IGNORECASE)  # also urn:ogc:def:crs:EPSG::3857
SHOWN = 60  # characters of a text about a system in a message


@dataclass(frozen=True)
class MapSystem:
    """A system of coordinates by the name that PROJ knows, or one of which only a `text` is known."""

    name: str | None
    text: str = ""

    def __str__(self) -> str:
        return self.name or (f"a system of its own ({self.text[:SHOWN]!r})" if self.text else "a system that it does not name")

    def is_like(self, other: "MapSystem") -> bool:
        """Whether places in one are places in the other."""
        return self.name is not None and _plain(self.name) == _plain(other.name or "")

    @property
    def urn(self) -> str:
        """How the member `crs` of a GeoJSON calls it; for systems with a name."""
        authority, _, code = _plain(self.name or "").partition(":")
        return f"urn:ogc:def:crs:OGC:1.3:{code}" if authority == "OGC" else f"urn:ogc:def:crs:{authority}::{code}"


DEGREES = MapSystem("OGC:CRS84")  # longitude and latitude


def _plain(name: str) -> str:
    return "OGC:CRS84" if name == "EPSG:4326" else name  # these differ in the order of axes alone, which is always x, y here


def of_geotiff(path: Path) -> MapSystem:
    """The system of the map that a GeoTIFF lies on.

    Raises:
        FormatError: the file is damaged.
    """
    tags = geo_tags(path)
    raw = {code: data for code, _, _, data in tags.tags} if tags is not None else {}
    order = tags.byteorder if tags is not None else "<"
    data = raw.get(KEYS, b"")
    table = np.frombuffer(data[: len(data) // 8 * 8], order + "u2").reshape(-1, 4)[1:]  # after the version
    texts = raw.get(TEXTS, b"").decode("latin-1")
    values = {int(key): int(value) for key, place, _, value in table if place == 0}
    cited = {int(key): texts[first : first + count] for key, place, count, first in table.tolist() if place == TEXTS}
    key = GEOGRAPHIC if values.get(MODEL) == IS_GEOGRAPHIC or PROJECTED not in values else PROJECTED
    number = values.get(key, 0)
    if 0 < number < USER_DEFINED:
        return MapSystem(f"EPSG:{number}")
    return MapSystem(None, next((cited[key].strip("|\0 ") for key in CITATIONS if key in cited), ""))


def of_geojson(crs: Any, place: str) -> MapSystem | None:
    """The system that the member `crs` of a GeoJSON names, None where there is none.

    Raises:
        FormatError: it names none that is known.
    """
    if crs is None:
        return None
    properties = crs.get("properties") if isinstance(crs, dict) else None
    given = properties if isinstance(properties, dict) else {}
    name = given.get("name") or (f"EPSG:{given['code']}" if given.get("code") else None)
    known = NAMED.search(name) if isinstance(name, str) else None
    if known is None:
        raise FormatError(
            f"{place}: crs is {crs!r:.80}, which names no system; write a name such as urn:ogc:def:crs:EPSG::3857, or export "
            "it in degrees without crs"
        )
    return MapSystem(f"{known[1].upper()}:{known[2].upper()}")


def moved(points: np.ndarray, source: MapSystem, target: MapSystem, place: str) -> np.ndarray:
    """Places float64 (V, 2) of one system in another; infinite where that has none. Both have a name.

    Raises:
        MissingExtraError: pyproj is not installed.
        FormatError: PROJ does not know one of them.
    """
    if source.is_like(target):
        return points
    what = f"{place} is in {source}, its image in {target}"
    try:
        transformer = _transformer(source, target)
    except ImportError as error:
        raise MissingExtraError(
            f"{what}: to bring one into the other, pip install 'segwright[geo]'; or export the labels in the system of the "
            "image"
        ) from error
    except RuntimeError as error:  # of PROJ
        raise FormatError(f"{what}, and PROJ knows no way ({error}); export the labels in the system of the image") from error
    return np.stack(transformer.transform(points[:, 0], points[:, 1]), axis=1)


@lru_cache(maxsize=8)  # a data set has one or two pairs of systems; looking for the way takes 10 ms
def _transformer(source: MapSystem, target: MapSystem) -> Any:
    import pyproj
    import pyproj.network

    pyproj.network.set_network_enabled(False)  # grids of shifts, of centimetres, would be fetched
    return pyproj.Transformer.from_crs(source.name, target.name, always_xy=True)
