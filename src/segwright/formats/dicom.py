"""DICOM: a folder with one or more series of images, in files of any names; segmentations (DICOM-SEG) among them are the truth.

    ROOT/.../ANYTHING      images, sorted by their position in space, whatever their names
    ROOT/.../ANYTHING      DICOM-SEG objects: the truth of the series that they reference; a series without one has none

The key of a sample is the folder of its series below ROOT, with the number of the series where a folder holds several. Values
are rescaled as the files say (slope and intercept), spacing and affine come from the positions, in LPS. Gaps, two slices at one
place, mixed sizes or directions are errors when the series is read, as they would put voxels where they do not belong. Images
without position (radiographs) are single 2D samples. Localizers beside a scan are passed over.

Each segment of a DICOM-SEG is a segment of the class that it is labelled; a tracking id that ends in a number makes it an
object of that number. Pixels of no segment are the class "background", or nothing where all segments are objects. Segments
without a pixel are counted as left out, and so are the contours of structure sets (RTSTRUCT), which are not read.

What `write_segmentation` writes references the source series, so that viewers lay it over the images. A class "background" is
no segment. Lost: void, which becomes background, and scores. Series themselves are not written: this module has no `write`.
"""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from segwright.codecs.dicom_series import (
    Slice,
    files_below,
    find_series,
    in_order,
    is_dicom,
    read_header,
    read_series,
    series_grid,
)
from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.atomic_files import replacing
from segwright.core.classes import BACKGROUND, background_of, plain, spellings
from segwright.core.errors import FormatError, MissingExtraError, OutputError, SegwrightError
from segwright.core.visualise import VOID_COLOR
from segwright.formats import dataset_file
from segwright.formats.image_index import natural, safe_key
from segwright.formats.resume_journal import truth_of

log = logging.getLogger(__name__)

LOOKED_AT = 20  # files: among those of a DICOM folder others may lie, such as a README
OBJECT = re.compile(r".*?(\d{1,9})")
HALF = 0.5  # of a fractional segment: what is at least as likely in as out
TAKEN_OVER = (  # from the series by its DICOM-SEG, which must have them
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber", "StudyDate", "StudyTime"),
    "ReferringPhysicianName",
)
SCHEME = "99SEGWRIGHT"  # of the codes for classes; names that begin with 99 are free for anyone


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one series by its key, with the segmentations that reference it and the number of contours that do."""

    slices: dict[str, list[Slice]]
    segmentations: dict[str, list[Path]]
    classes: Classes
    contours: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, key: str) -> Sample:
        ordered = self.slices[key] if len(self.slices[key]) == 1 else in_order(self.slices[key])
        image, grid = read_series(ordered)
        truth, left_out = None, dict[str, int]()
        if self.segmentations.get(key):
            truth, empty = _truth(self.segmentations[key], ordered, grid.shape, self.classes)
            left_out |= {"segments without a pixel": empty} if empty else {}
        left_out |= {"contours of a structure set (RTSTRUCT)": self.contours[key]} if self.contours.get(key) else {}
        return Sample(key, image, grid, truth, left_out)


def matches(path: Path | str) -> bool:
    """Whether a path is a DICOM file, or one of the first files below it is."""
    return any(is_dicom(file) for file in islice(files_below(Path(path)), LOOKED_AT))


def read(path: Path | str) -> Dataset:
    """The series below a folder, by key; all headers are read here, pixels when a sample is asked for.

    Raises:
        FormatError: there is no image, or a header is damaged. What is wrong with a series is told when its sample is read.
        MissingExtraError: pydicom is not installed.
    """
    root = Path(path)
    if not root.exists():
        raise FormatError(f"{root} does not exist; give the folder of a DICOM series")
    series, segmentations, structures = find_series(root)
    samples = _keyed(root, series)
    if not samples:
        raise FormatError(f"{root} holds no DICOM image; give the folder of a series")
    dropped = dataset_file.dropped(root)
    samples = {key: samples[key] for key in sorted(samples, key=natural) if key not in dropped}
    key_of = {one.series_uid: key for key, slices in samples.items() for one in slices[:1]}
    truths: dict[str, list[Path]] = {}
    segments: list[_Segment] = []
    for file in segmentations:
        header = read_header(file, ["ReferencedSeriesSequence", "SegmentSequence"])
        referenced = [str(item.get("SeriesInstanceUID")) for item in header.get("ReferencedSeriesSequence") or []]
        keys = [key_of[uid] for uid in referenced if uid in key_of]
        if not keys:
            log.warning("%s: the series that it segments is not below %s; it is passed over", file, root)
            continue
        truths.setdefault(keys[0], []).append(file)
        segments += _segments(header, file)
    contours: Counter[str] = Counter()
    for file in structures:
        uids, count = _structures(file)
        log.warning("%s: its %d contours (RTSTRUCT) are not read; save them as DICOM-SEG or NIfTI", file, count)
        contours.update({key_of[uid]: count for uid in uids if uid in key_of})
    classes = _classes(segments)
    return Dataset(str(root), classes, tuple(samples), Reader(samples, truths, classes, contours))


def write_segmentation(
    path: Path | str, segmentation: Segmentation, series: Path | str | Dataset, *, key: str | None = None
) -> None:
    """Write a segmentation of a series as a DICOM-SEG that references the series; one made for `read(series)[0]` fits.

    `series` is its folder, or what `read` has made of that. `key` says which one is meant where it holds several.

    Raises:
        OutputError: the series has another shape, it is not clear which one is meant, or the place is not writable.
        FormatError: the series cannot be read, or lacks what a DICOM-SEG takes over from it.
        MissingExtraError: highdicom is not installed.
    """
    target = Path(path)
    if isinstance(series, Dataset):
        root, reader = series.source, series.load
        samples = reader.slices if isinstance(reader, Reader) else {}
    else:
        root = str(series)
        samples = _keyed(Path(series), find_series(Path(series))[0])
    if len(samples) != 1 and key not in samples:
        raise OutputError(f"{root} holds {len(samples)} series ({', '.join(samples)}); say which one is meant with key")
    slices = samples[key] if key in samples else next(iter(samples.values()))
    ordered = slices if len(slices) == 1 else in_order(slices)
    grid = series_grid(ordered)
    shape = grid.shape
    if segmentation.shape != shape:
        raise OutputError(f"{target}: the segmentation is {segmentation.shape}, the series {shape}; predict on this series")
    if (segmentation.planes == VOID).any():
        log.info("%s: void is not kept, DICOM-SEG has no place for it", target)
    described, pixels = _described(segmentation)
    if len(shape) == 2:
        pixels = pixels[None]
    thickness = float((grid.spacing_mm or (1.0,))[0]) if len(shape) == 3 else 1.0
    highdicom = _highdicom()
    try:
        written = highdicom.seg.Segmentation(
            source_images=[_completed(read_header(one.path), thickness) for one in ordered],
            pixel_array=pixels,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=described,
            series_instance_uid=highdicom.UID(),
            series_number=1,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="Segwright",
            manufacturer_model_name="Segwright",
            software_versions="1",
            device_serial_number="1",
        )
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise FormatError(
            f"{ordered[0].path.parent}: no DICOM-SEG can reference this series ({error}); complete its headers"
        ) from error
    with replacing(target) as file:
        written.save_as(file)


def mask_path(folder: Path, key: str, source: Dataset) -> Path:
    """The file that `write_mask` writes."""
    return folder / f"{key}.dcm"


def write_mask(folder: Path, sample: Sample, source: Dataset, *, palette: bool = False) -> Path:
    """Write the truth of a sample of `source`, objects and all, as a DICOM-SEG that references the series.

    The classes have their colours in it, whatever `palette` says. Raises what `write_segmentation` raises.
    """
    path = mask_path(folder, sample.key, source)
    write_segmentation(path, truth_of(sample), source, key=sample.key)
    return path


@dataclass(frozen=True)
class _Segment:
    """One segment of a DICOM-SEG; `number` is that of its object, None for stuff."""

    index: int
    name: str
    number: int | None
    color: tuple[int, int, int] | None


def _keyed(root: Path, series: dict[str, list[Slice]]) -> dict[str, list[Slice]]:
    """The slices of each sample by its key."""
    groups = [group for slices in series.values() for group in ([slices] if slices[0].has_place else [[one] for one in slices])]
    base = root if root.is_dir() else root.parent
    folder_of = {id(group): group[0].path.parent.relative_to(base).as_posix() for group in groups}
    count = Counter(folder_of.values())
    keyed: dict[str, list[Slice]] = {}
    for group in groups:
        first, folder = group[0], folder_of[id(group)]
        name = base.resolve().name if folder == "." else folder
        if not first.has_place:
            name = f"{name}/{first.path.stem}" if count[folder] > 1 else name
        elif count[folder] > 1:
            name = f"{name}/{first.series_uid if first.series_number is None else first.series_number}"
        key = safe_key(name)
        keyed[key if key not in keyed else safe_key(f"{name}/{first.series_uid}/{first.uid}")] = group
    return keyed


def _segments(header: Any, path: Path) -> list[_Segment]:
    """What a DICOM-SEG says of its segments."""
    found = []
    try:
        for item in header.get("SegmentSequence") or []:
            name = str(item.get("SegmentLabel") or "") or f"segment {item.SegmentNumber}"
            match = OBJECT.fullmatch(str(item.get("TrackingID") or ""))
            lab = item.get("RecommendedDisplayCIELabValue")
            found.append(_Segment(int(item.SegmentNumber), name, int(match[1]) if match else None, _rgb(lab) if lab else None))
    except Exception as error:  # values are parsed when they are asked for
        raise FormatError(f"{path} is a damaged DICOM-SEG ({error}); copy it again or remove it") from error
    return found


def _classes(segments: Sequence[_Segment]) -> Classes:
    """The classes that segments are labelled, after the background unless all are objects."""
    if not segments:
        return Classes.of(["nothing"])
    known = spellings(segment.name for segment in segments)
    for several in known.values():
        if len(several) > 1:
            log.warning("labels of segments are taken for one: %s", ", ".join(map(repr, several)))
    things = {plain(segment.name) for segment in segments if segment.number is not None}
    colors = {plain(segment.name): segment.color for segment in reversed(segments) if segment.color}
    names = {name: first for name, (first, *_) in known.items()}
    if BACKGROUND not in names and things < names.keys():
        names, colors = {BACKGROUND: BACKGROUND} | names, {BACKGROUND: VOID_COLOR} | colors
    distinct = Classes.of([*names.values()]).colors
    return Classes.of(
        [*names.values()],
        colors=[colors.get(name, color) for name, color in zip(names, distinct, strict=True)],
        is_thing=[name in things for name in names],
    )


def _structures(path: Path) -> tuple[set[str], int]:
    """The series that a structure set lies on, and how many contours it names."""
    header = read_header(path, ["ReferencedFrameOfReferenceSequence", "StructureSetROISequence"])
    uids = {
        str(series.get("SeriesInstanceUID"))
        for frame in header.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
    }
    return uids, len(header.get("StructureSetROISequence") or [])


def _truth(
    files: Sequence[Path], ordered: Sequence[Slice], shape: tuple[int, ...], classes: Classes
) -> tuple[Segmentation, int]:
    """The segments of DICOM-SEG files on the slices that they reference, and how many have no pixel."""
    class_ids_of = {plain(name): index for index, name in enumerate(classes.names)}
    empty = 0
    highdicom = _highdicom()
    planes = np.zeros((1, *shape), np.int32)
    class_ids: list[int] = []
    numbers: list[int] = []
    for file in files:
        try:
            stored = highdicom.seg.segread(file)
            for segment in _segments(stored, file):
                pixels = stored.get_pixels_by_source_instance(
                    [one.uid for one in ordered], [segment.index], assert_missing_frames_are_empty=True
                )  # (D, H, W, 1)
                mask = (pixels[..., 0] >= HALF).reshape(shape)
                if not mask.any():
                    empty += 1
                    continue
                class_ids.append(class_ids_of[plain(segment.name)])
                numbers.append(segment.number or 0)
                free = next((plane for plane in planes if not plane[mask].any()), None)
                if free is None:
                    planes = np.concatenate([planes, np.zeros_like(planes[:1])])
                    free = planes[-1]
                free[mask] = len(class_ids)
        except SegwrightError:
            raise
        except Exception as error:  # damaged files make the decoder fail in any way
            raise FormatError(f"{file} cannot be laid over {ordered[0].path.parent} ({error}); export it again") from error
    background = background_of(classes)
    if background is not None and (is_left := (planes == 0).all(axis=0)).any():
        class_ids.append(background)
        numbers.append(0)
        planes[0][is_left] = len(class_ids)
    ones = np.ones(len(class_ids), np.float32)
    return Segmentation(planes, np.array(class_ids, np.int32), np.array(numbers, np.int32), ones, classes), empty


def _described(segmentation: Segmentation) -> tuple[list[Any], np.ndarray]:
    """What highdicom needs: a description per segment, and their numbers (*S), or, if they overlap, bool (*S, N)."""
    classes = segmentation.classes
    first = int(classes.names[0] == BACKGROUND)
    kept = np.flatnonzero(segmentation.class_ids >= first)
    if not len(kept):  # nothing was found, but a DICOM-SEG has one segment at least: it names what was looked for
        described = [
            _description(index + 1, classes, k, 0) for index, k in enumerate(range(min(first, len(classes) - 1), len(classes)))
        ]
        return described, np.zeros(segmentation.shape, np.uint8)
    described = [
        _description(index + 1, classes, int(segmentation.class_ids[i]), int(segmentation.instance_ids[i]))
        for index, i in enumerate(kept)
    ]
    if len(segmentation.planes) > 1:
        return described, np.stack([segmentation.mask(int(i)) for i in kept], axis=-1)
    number_of = np.zeros(len(segmentation) + 1, np.uint16 if len(kept) > 255 else np.uint8)
    number_of[kept + 1] = np.arange(1, len(kept) + 1)
    return described, number_of[np.maximum(segmentation.planes[0], 0)]


def _description(index: int, classes: Classes, class_id: int, number: int) -> Any:
    highdicom = _highdicom()
    from pydicom.sr.codedict import codes

    name = classes.names[class_id]
    return highdicom.seg.SegmentDescription(
        segment_number=index,
        segment_label=name[:64],  # DICOM's longest
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=highdicom.sr.CodedConcept(f"CLASS{class_id}", SCHEME, name[:64]),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence("Segwright", codes.DCM.ArtificialIntelligence, "1"),
        tracking_uid=highdicom.UID() if number else None,
        tracking_id=f"{name[:50]} {number}" if number else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*classes.colors[class_id]),
    )


def _rgb(lab: Sequence[int]) -> tuple[int, int, int]:
    highdicom = _highdicom()
    red, green, blue = highdicom.color.CIELabColor.from_dicom_value(lab).to_rgb()
    return int(red), int(green), int(blue)


def _completed(header: Any, thickness: float) -> Any:
    """A header with those attributes that must be there and are often left out: empty ones, and the thickness in mm."""
    for name in TAKEN_OVER:
        if name not in header:
            setattr(header, name, "")
    if header.get("SliceThickness") is None:
        header.SliceThickness = f"{thickness:.10g}"
    return header


def _highdicom() -> ModuleType:
    try:
        import highdicom
        import highdicom.color
        import highdicom.seg
        import highdicom.sr
    except ImportError as error:
        raise MissingExtraError("DICOM-SEG needs highdicom, install it: pip install 'segwright[medical]'") from error
    return highdicom
