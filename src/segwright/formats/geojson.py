"""GeoJSON: one NAME.geojson of polygons per image, beside it or in a folder of labels.

    ROOT/NAME.tif              the image; or images/NAME.tif
    ROOT/NAME.geojson          or labels/NAME.geojson, NAME.tif.geojson; subfolders such as train/ become the first part of keys
    ROOT/classes.json          optional: the classes with their order and colours (named_objects.py says more); `write` adds it

    {"type": "FeatureCollection", "features": [
      {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[x, y], ...], hole, ...]},
       "properties": {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}}}, ...]}

Coordinates are pixels (x, y) of the image, as QuPath writes them; where the image is a GeoTIFF that says where it lies, they
are places on its map, or degrees, or in the system that `crs` names (geojson_places.py says which when). A feature is one
object, a MultiPolygon one of several parts. Its class is the name of its `classification`, else `class`, `label` or `name` of
its properties, else "object". What QuPath calls "Ignore*" is void, unless a class is called so. Points and lines are counted as
drawn_shapes.py says, and so are collections of geometries.

Written are the borders of pixels, so that each pixel comes back, on a map in the system of the image, which `crs` then names;
`instance_id` and `score` among the properties are ours, and so is the member `image`, the name and size of the image. Lost are
objects without a pixel, and the size of pixels unless a GeoTIFF is copied.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, FiniteFloat, Tag, TypeAdapter

from segwright.codecs import polygons, rle
from segwright.codecs.image_file import SUFFIXES, TIFF_SUFFIXES
from segwright.codecs.json_stream import JsonFile, write_json
from segwright.core import Classes, Dataset, Grid, Sample
from segwright.core.errors import FormatError, OutputError
from segwright.formats.drawn_shapes import LINE_OR_POINTS, SWAPPED, Drawing, of_kind
from segwright.formats.geojson_places import Placement, pixels_of, placed_on, to_map
from segwright.formats.image_index import SHOWN, ImageIndex, found, natural
from segwright.formats.map_systems import of_geojson, of_geotiff
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
    write_classes_file,
)
from segwright.formats.resume_journal import Journal
from segwright.formats.tiff import tiff_grid

log = logging.getLogger(__name__)

LOSES = "objects without a pixel are not kept, nor the size of pixels, unless the image is a GeoTIFF that can be copied"
VOID_NAME = "Ignore*"  # QuPath's class for what is to be left out
UNNAMED = "object"
OWN_PROPERTIES = ("objectType", "instance_id", "score", "classification", "class", "label", "name")

Ring = list[Annotated[list[FiniteFloat], Field(min_length=2)]]


@dataclass(slots=True)
class _Polygon:
    type: Literal["Polygon"]
    coordinates: list[Ring]


@dataclass(slots=True)
class _MultiPolygon:
    type: Literal["MultiPolygon"]
    coordinates: list[list[Ring]]


@dataclass(slots=True)
class _OtherGeometry:
    type: str


def _kind(geometry: Any) -> str:
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    return kind if kind in ("Polygon", "MultiPolygon") else "other"


Geometry = Annotated[
    Annotated[_Polygon, Tag("Polygon")]
    | Annotated[_MultiPolygon, Tag("MultiPolygon")]
    | Annotated[_OtherGeometry, Tag("other")],
    Discriminator(_kind),
]


@dataclass(slots=True)
class _Feature:
    geometry: Geometry | None
    properties: dict[str, Any] | None = None


@dataclass(slots=True)
class _FeatureHead:
    geometry: _OtherGeometry | None = None
    properties: dict[str, Any] | None = None


@dataclass(slots=True)
class _Image:
    path: str | None = None
    height: int | None = None
    width: int | None = None
    coordinates: str | None = None


FEATURE, HEAD, IMAGE = TypeAdapter(_Feature), TypeAdapter(_FeatureHead), TypeAdapter(_Image | None)
ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key, from its GeoJSON and, where there is one, its image."""

    files: dict[str, Path]
    images: dict[str, Path]
    classes: Classes

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_picture)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read."""
        return self._sample(key, unread_picture)

    def _sample(self, key: str, picture: Callable[..., np.ndarray]) -> Sample:
        path, image_path = self.files[key], self.images.get(key)
        file = JsonFile(path)
        said = _image(file)
        shape = check_size(said.height, said.width, str(path)) if said.height is not None and said.width is not None else None
        name = said.path or label_name(path.parent, path)
        image = picture(image_path, shape, str(path), name=name, is_needed=bool(self.images))
        grid = image_grid(image_path, image.shape[1:])
        features = [*file.entries(_features(file), FEATURE)]
        places = _placement(file, said, features, grid, image_path)
        drawing = Drawing((image.shape[1], image.shape[2]))
        regions, void = [], []
        for number, feature in enumerate(features):
            counts = _draw(feature, places, drawing, f"{path}: features[{number}]")
            if counts is None:
                continue
            properties = feature.properties or {}
            class_name = _class_name(properties)
            if class_name == VOID_NAME and VOID_NAME not in self.classes.names:
                void.append(counts)
                continue
            number_given, score = properties.get("instance_id"), properties.get("score")
            is_number = isinstance(number_given, int) and not isinstance(number_given, bool)
            is_score = isinstance(score, int | float) and not isinstance(score, bool) and np.isfinite(score)
            region = Region(class_name, counts, number_given if is_number else None, float(score or 0) if is_score else 1.0)
            regions.append(region)
        unknown = rle.union(void, drawing.shape) if void else None
        return drawing.sample(key, image, segmentation(regions, drawing.shape, self.classes, str(path), void=unknown), grid)


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with a file in it or below that ends in .geojson."""
    return any(True for _ in label_files(Path(path), ".geojson"))


def read(path: Path | str) -> Dataset:
    """The samples of a folder in name order; each is read when it is asked for.

    Raises:
        FormatError: there is no such file, one is no GeoJSON, two would have one key, or classes.json is not as it should be.
    """
    root = Path(path)
    files = sorted(label_files(root, ".geojson"), key=lambda file: natural(_name(root, file)))
    if not files:
        there = found(root) if root.is_dir() else "it is no folder"
        raise FormatError(f"{root} holds no .geojson ({there}); save one beside each image")
    keys = unique_keys((_name(root, file) for file in files), root)
    index = ImageIndex(root)
    images = images_by_key(keys, (_image_of(index, file) for file in files))
    if not images:
        log.warning("%s: no image lies beside the annotations, so that the samples have none", root)
    colors: dict[str, tuple[int, int, int]] = {}
    names = {name for file in files for name in _names(file, colors)}
    if names == {UNNAMED} and (given := _properties(files)):
        said = "%s: no feature says its class by classification, class, label or name (but it has %s): all are %r"
        log.warning(said, root, ", ".join(given), UNNAMED)
    classes = find_classes(root, names, colors)
    return Dataset(str(root), classes, tuple(keys), Reader(dict(zip(keys, files, strict=True)), images, classes), images)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as images, one GeoJSON beside each, and classes.json; the key train__a goes to train/a.

    Raises:
        OutputError: the place is not writable or already holds something, there is no sample, or one has no truth, is a
            volume, or has an unsafe key or other classes than the first.
    """
    root = Path(path)
    with Journal(root, "geojson", samples) as journal:
        for sample in journal.samples():
            truth = truth_2d(sample, "geojson")
            place = place_of(sample.key)
            image = journal.write_image(sample, root / place)
            grid = image_grid(image, truth.shape)
            system = of_geotiff(image) if image is not None and grid.affine is not None else None
            void = rle.of_void(truth.planes)
            if VOID_NAME in truth.classes.names and rle.area(void):
                raise OutputError(f"sample {sample.key!r} has void, which is called {VOID_NAME!r} here; rename that class")
            features = [_feature(Region(VOID_NAME, void, 0), grid, None)] if rle.area(void) else []
            for region in regions_of(sample, "geojson"):
                color = truth.classes.colors[truth.classes.names.index(region.name)]
                features += [_feature(region, grid, color)] if rle.area(region.counts) else []
            said = {
                "path": image.name if image else f"{PurePosixPath(place).name}.png",
                "height": truth.shape[0],
                "width": truth.shape[1],
                "coordinates": "pixels" if system is None else "map",
            }
            named = {"crs": {"type": "name", "properties": {"name": system.urn}}} if system is not None and system.name else {}
            content = {"type": "FeatureCollection", **named, "image": said, "features": iter(features)}
            write_json(root / f"{place}.geojson", content)
            journal.add(sample)
        write_classes_file(root, journal.classes)


def _name(root: Path, file: Path) -> str:
    """The path below the root without .geojson, and without the suffix of the image before it."""
    name = label_name(root, file)
    return name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name


def _features(file: JsonFile) -> str:
    """The key of the list of features; QuPath once wrote the list alone."""
    return "" if file.is_list else "features"


def _image(file: JsonFile) -> _Image:
    """What our own member says of the image; others may have a member of that name."""
    if "image" not in file.keys or "coordinates" not in (file.value("image", ANYTHING) or ()):
        return _Image()
    return file.value("image", IMAGE) or _Image()


def _image_of(index: ImageIndex, file: Path) -> Path | None:
    """The image that a file says, or the one of its name."""
    folder = file.parent.relative_to(index.root).as_posix()
    said = _image(JsonFile(file)).path
    stem = _name(file.parent, file)
    names = [said] if said else [stem + case(suffix) for suffix in SUFFIXES for case in (str.lower, str.upper, str.title)]
    fitting = {image for name in names if (image := find_image(index, folder, name)) is not None}
    if len(fitting) > 1:
        one, other, *_ = sorted(fitting)
        raise FormatError(f"{file}: its image may be {one} or {other}; rename or move one")
    return next(iter(fitting), None)


def image_grid(image: Path | None, shape: tuple[int, ...]) -> Grid:
    """Where the pixels of an image of this shape are; only a GeoTIFF says it."""
    if image is not None and image.suffix.lower() in TIFF_SUFFIXES:
        grid = tiff_grid(image)
        if grid.shape == shape:
            return grid
    return Grid(shape)


def _class_name(properties: dict[str, Any]) -> str:
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        classification = classification.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else None)
    for name in (classification, *(properties.get(key) for key in ("class", "label", "name"))):
        if isinstance(name, str | int) and not isinstance(name, bool) and str(name):
            return str(name)
    return UNNAMED


def _color(properties: dict[str, Any]) -> tuple[int, int, int] | None:
    """The colour that QuPath gives to a class: [r, g, b], or the bits of alpha, red, green and blue in one number."""
    classification = properties.get("classification")
    given = classification if isinstance(classification, dict) else {}
    color, packed = given.get("color"), given.get("colorRGB")
    if isinstance(color, list) and len(color) >= 3 and all(isinstance(part, int) and 0 <= part <= 255 for part in color[:3]):
        return color[0], color[1], color[2]
    if isinstance(packed, int):
        return packed >> 16 & 255, packed >> 8 & 255, packed & 255
    return None


def _names(file: Path, colors: dict[str, tuple[int, int, int]]) -> Iterator[str]:
    """The names of classes in a file; their colours are noted."""
    opened = JsonFile(file)
    for feature in opened.entries(_features(opened), HEAD):
        properties = feature.properties or {}
        name = _class_name(properties)
        if name == VOID_NAME or feature.geometry is None or feature.geometry.type not in ("Polygon", "MultiPolygon"):
            continue
        color = _color(properties)
        if color:
            colors.setdefault(name, color)
        yield name


def _properties(files: Iterable[Path]) -> list[str]:
    """The names of properties of the first feature that has any, but those that QuPath and we write."""
    for file in files:
        opened = JsonFile(file)
        for feature in opened.entries(_features(opened), HEAD):
            if given := [name for name in feature.properties or () if name not in OWN_PROPERTIES]:
                return given[:SHOWN]
    return []


def _placement(file: JsonFile, said: _Image, features: Sequence[_Feature], grid: Grid, image: Path | None) -> Placement:
    """How places in a file become pixels of its image."""
    if said.coordinates == "map" and (grid.affine is None or image is None):
        raise FormatError(f"{file.path} has coordinates of a map, but no GeoTIFF says where its image lies; add that image")
    crs = of_geojson(file.value("crs", ANYTHING) if "crs" in file.keys else None, str(file.path))
    rings = [_corners(rings[0]) for feature in features for rings in _parts(feature) if rings]
    is_pixels = said.coordinates == "pixels"
    is_qupath = any("objectType" in (feature.properties or {}) for feature in features) and said.coordinates is None
    if is_pixels or grid.affine is None or image is None:
        return pixels_of(grid, None if is_pixels else crs, str(file.path))
    return placed_on(grid, of_geotiff(image), crs, rings, str(file.path), may_be_pixels=is_qupath)


def _parts(feature: _Feature) -> list[list[Ring]]:
    """The polygons of a feature, each its outer ring and its holes; none where it is something else."""
    geometry = feature.geometry
    if isinstance(geometry, _Polygon):
        return [geometry.coordinates]
    return geometry.coordinates if isinstance(geometry, _MultiPolygon) else []


def _corners(ring: Ring) -> np.ndarray:
    return np.array([point[:2] for point in ring], np.float64).reshape(-1, 2)


def _draw(feature: _Feature, places: Placement, drawing: Drawing, place: str) -> np.ndarray | None:
    """The run lengths (R,) of a feature, None where it has no pixel."""
    geometry = feature.geometry
    if geometry is None or isinstance(geometry, _OtherGeometry):
        kind = geometry.type if geometry is not None else "no geometry"
        drawing.leave_out(LINE_OR_POINTS if kind.removeprefix("Multi") in ("Point", "LineString") else of_kind(kind))
        return None
    if places.is_swapped:
        drawing.leave_out(SWAPPED)
        return None
    return drawing.areas([[places.pixels(_corners(ring)) for ring in rings] for rings in _parts(feature)], place)


def _feature(region: Region, grid: Grid, color: tuple[int, int, int] | None) -> dict[str, Any]:
    parts = [
        [_closed(to_map(ring, grid.affine), is_outer=number == 0) for number, ring in enumerate(rings)]
        for rings in polygons.trace_counts(region.counts, grid.shape)
    ]
    is_one = len(parts) == 1
    classification = {"name": region.name} | ({"color": list(color)} if color else {})
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon" if is_one else "MultiPolygon", "coordinates": parts[0] if is_one else parts},
        "properties": {"objectType": "annotation", "classification": classification} | number_attributes(region),
    }


def _closed(ring: np.ndarray, *, is_outer: bool) -> list[list[float]]:
    """A ring with its first corner once more at its end; outer rings run counterclockwise where y grows upwards (RFC 7946)."""
    if (polygons.signed_area(ring) > 0) != is_outer:
        ring = ring[::-1]
    return [*ring.tolist(), ring[0].tolist()]
