"""A data set of nnU-Net (raw, version 2): dataset.json with imagesTr/ and labelsTr/.

    ROOT/dataset.json                   {"channel_names": {"0": "CT"}, "labels": {"background": 0, "tumour": 1, "ignore": 2},
                                         "file_ending": ".nii.gz"}
    ROOT/imagesTr/CASE_0000.nii.gz      one file per channel; a PNG may hold several
    ROOT/labelsTr/CASE.nii.gz           the numbers of dataset.json

Endings may be those of volumes and of PNG and TIFF images. Where labels are regions, {"whole": [1, 2], "core": [2]}, each
region is one class, regions overlap, and the background, which lies in none, is no class. In the order of the labels,
"regions_class_order": [1, 2] has the number that each of them writes over those before. The key of a sample is its case. Where
imagesTs/ and labelsTs/ have cases too, these are the part to test with: keys are train__CASE and test__CASE then. Images there
without label are not read.

The older form, of the Decathlon, is read too: {"modality": {"0": "CT"}, "labels": {"0": "background"}} without file_ending, and
one file CASE.nii.gz whose fourth axis holds the channels.

What is written: volumes as .nii.gz with the grid of the image, 2D images as .png, or .tif where their values need it, the same
for all. Number 0 is the class "background" if that is the first class, else what belongs to no class; void is "ignore". Where
the first sample has several planes of stuff, or classes are regions, the labels are regions. Colours, things and the meaning of
0 are in dataset.json too, under "segwright", which nnU-Net passes over.

Lost: the numbers of objects; of overlapping segments the later covers the earlier, unless they are regions. Beside a class
"background", pixels of no class become void; beside regions it is no class. Scores, and of 2D images the grid, are not kept.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictInt, TypeAdapter, ValidationError, model_validator

from segwright.codecs import volume_file
from segwright.codecs.image_file import SUFFIXES as IMAGE_SUFFIXES
from segwright.codecs.image_file import read_mask
from segwright.codecs.image_writer import write_image, write_values
from segwright.codecs.json_stream import top_keys
from segwright.core import VOID, Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.atomic_files import replace_file
from segwright.core.errors import FormatError, OutputError, SettingError
from segwright.core.strict_json import json_text
from segwright.formats import dataset_file
from segwright.formats.image_index import found, natural, safe_key
from segwright.formats.label_encoding import numbers_of_class
from segwright.formats.label_maps import NOTHING, region_numbers, to_maps, to_segmentation
from segwright.formats.nnunet_channels import CASE, CasePart, CaseReader, files_ending, read_channels
from segwright.formats.resume_journal import Journal, truth_of
from segwright.formats.volume_masks import check_same_grid, read_number_volume

log = logging.getLogger(__name__)

LOSES = (
    "the numbers of objects are lost, and of overlapping segments the later covers the earlier unless all are regions without "
    "objects; beside a class 'background', pixels of no class become void"
)
BACKGROUND, IGNORE = "background", "ignore"
MAX_REGIONS = 15  # each set of regions that may overlap at a pixel has a number of its own, of 16 bits
UNKNOWN = NOTHING - 1  # class of a number that no label has
VALUES = 1 << 16

Label = Annotated[StrictInt, Field(ge=0, lt=VALUES)]


class _Ours(BaseModel):
    """What nnU-Net has no place for: colours and things in the order of the labels, and what number 0 is."""

    model_config = ConfigDict(strict=True)
    colors: list[Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]]
    is_thing: list[bool]
    zero: Literal["background", "nothing"]


class _Content(BaseModel):
    """A dataset.json."""

    channel_names: dict[str, str]
    labels: dict[str, Label | list[Label]]
    regions_class_order: list[Label] | None = None
    file_ending: str
    segwright: _Ours | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, content: Any) -> Any:
        """The content of the older form under the names and in the order of today's."""
        if not isinstance(content, dict) or not isinstance(content.get("modality"), dict):
            return content
        labels = content.get("labels")
        if isinstance(labels, dict) and all(str(number).isdecimal() for number in labels):
            labels = {str(name): int(number) for number, name in labels.items()}
        return {"file_ending": ".nii.gz", "channel_names": content["modality"]} | content | {"labels": labels}


@dataclass(frozen=True, eq=False)
class NnunetMeaning:
    """What the numbers stand for: `class_of` int32 (65536,) is the class of each, VOID, NOTHING or UNKNOWN.

    Where classes are regions, it is the number itself (see label_maps.py).
    """

    classes: Classes
    class_of: np.ndarray

    def truth(self, numbers: np.ndarray, path: Path) -> Segmentation:
        """The segmentation that a map of numbers (*S) stands for.

        Raises:
            FormatError: a number has no label.
        """
        class_map = self.class_of[numbers]
        if class_map.min(initial=0) == UNKNOWN:
            number = int(numbers[class_map == UNKNOWN][0])
            raise FormatError(f"{path} holds the number {number}, which has no label in dataset.json; add one there")
        return to_segmentation(class_map, None, self.classes)


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one case by its key."""

    files: dict[str, tuple[list[Path], Path]]
    meaning: NnunetMeaning
    channels: int

    def __call__(self, key: str) -> Sample:
        paths, label_path = self.files[key]
        numbers, label_grid = read_labels(label_path)
        image, grid = read_channels(key, paths, self.channels, numbers.shape)
        check_same_grid(grid, label_grid, paths[0], label_path)
        return Sample(key, image, grid, self.meaning.truth(numbers, label_path))


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with dataset.json, imagesTr/ and labelsTr/."""
    path = Path(path)
    return (path / "dataset.json").is_file() and (path / "imagesTr").is_dir() and (path / "labelsTr").is_dir()


def read(path: Path | str) -> Dataset:
    """The cases of a folder in name order; each is read when it is asked for.

    Raises:
        FormatError: dataset.json, imagesTr/ or labelsTr/ is missing or not as the docstring of the module says, or a channel
            or a label is missing. Damaged files, grids that differ and numbers without label are told when a case is read.
    """
    root = Path(path)
    content = _content(root / "dataset.json")
    meaning = _meaning(content, root / "dataset.json")
    ending = content.file_ending
    known = (*volume_file.SUFFIXES, *IMAGE_SUFFIXES)
    if ending not in known:
        raise FormatError(f"{root / 'dataset.json'}: file_ending is {ending!r}; {', '.join(known)} can be read")
    for folder in (root / "imagesTr", root / "labelsTr"):
        if not folder.is_dir():
            raise FormatError(f"{folder} is no folder; images and labels of nnU-Net lie in imagesTr/ and labelsTr/")
    labels = {name: files_ending(root / f"labels{name}", ending) for name in ("Tr", "Ts")}
    train, test = (CasePart.of(root / f"images{name}", ending, labels[name]) for name in ("Tr", "Ts"))
    if not train.images:
        raise FormatError(f"{root / 'imagesTr'} holds no image CASE_0000{ending} ({found(root / 'imagesTr')}); name them so")
    has_test = bool(test.images.keys() & labels["Ts"].keys())
    if labels["Ts"] and not has_test:
        log.warning("%s: no label in labelsTs/ (%d) has an image in imagesTs/; they are left out", root, len(labels["Ts"]))
    parts = {"train__": train, "test__": test} if has_test else {"": train}
    dropped, files = dataset_file.dropped(root), {}
    for prefix, part in parts.items():
        own = labels["Ts" if part is test else "Tr"]
        for case in sorted(part.images, key=natural):
            key = safe_key(prefix + case)
            if key in dropped or (part is test and case not in own):
                continue
            if key in files:
                raise FormatError(f"two cases would both be called {key}, the second is {own[case]}; rename one")
            files[key] = _with_label(part, case, len(content.channel_names), own)
    image_files = {key: images[0] for key, (images, _) in files.items() if len(images) == 1}
    return Dataset(str(root), meaning.classes, tuple(files), Reader(files, meaning, len(content.channel_names)), image_files)


def _with_label(part: CasePart, case: str, channels: int, labels: Mapping[str, Path]) -> tuple[list[Path], Path]:
    """The images of a case, and its label.

    Raises:
        FormatError: one is missing.
    """
    images = part.files(case, channels)
    if case not in labels:
        name = images[0].name.replace(f"{case}_0000", case)
        label = part.folder.with_name(part.folder.name.replace("images", "labels")) / name
        raise FormatError(f"{label} does not exist; each case of imagesTr/ needs it, cases without truth lie in imagesTs/")
    return images, labels[case]


def images_alone(place: Path, shape: tuple[int | None, ...] | None = None) -> Dataset | None:
    """The cases at a folder without truth: one of images such as imagesTs/, or a data set with such; None for others.

    A folder of images is called imagesTr or imagesTs, or holds a dataset.json of nnU-Net; without one in or above it, as many
    channels are needed as some case has. Keys are those of `read`. `shape` is what is known of the sides of images.

    Raises:
        FormatError: a channel is missing, or dataset.json is wrong.
    """
    if not place.is_dir():
        return None
    if matches(place):
        content = _content(place / "dataset.json")
        ending, channels = content.file_ending, len(content.channel_names)
        labels = {name: files_ending(place / f"labels{name}", ending) for name in ("Tr", "Ts")}
        parts = [CasePart.of(place / f"images{name}", ending, labels[name]) for name in ("Tr", "Ts")]
        has_test = bool(parts[1].images.keys() & labels["Ts"].keys())
        prefixes = ("train__", "test__") if has_test else ("", "")
    else:
        file = _dataset_file(place)
        is_named = place.name.lower() in ("imagestr", "imagests")
        if not is_named and (file is None or file.parent.absolute() != place.absolute()):
            return None
        ending, channels = _told(place, file)
        parts, prefixes = [CasePart.of(place, ending, {})], ("", "")
        channels = channels or max([len(images) for images in parts[0].images.values()], default=0)
    files: dict[str, list[Path]] = {}
    for prefix, part in zip(prefixes, parts, strict=False):
        for case in sorted(part.images, key=natural):
            key, own = safe_key(prefix + case), part.files(case, channels)
            if files.setdefault(key, own) is not own:
                raise FormatError(f"two cases would both be called {key}, the second is {own[0]}; rename one")
    if not files:
        return None
    images = {key: own[0] for key, own in files.items()}
    return Dataset(str(place), Classes.of(["nothing"]), tuple(files), CaseReader(files, channels, shape), images)


def _dataset_file(folder: Path) -> Path | None:
    """The dataset.json of nnU-Net in a folder, or in the one above."""
    files = (folder / "dataset.json", folder.absolute().parent / "dataset.json")
    return next((file for file in files if file.is_file() and {"labels", "file_ending"} <= top_keys(file)), None)


def _told(folder: Path, file: Path | None) -> tuple[str, int]:
    """The ending and the number of the channels of the images in a folder; 0 of them where no dataset.json tells."""
    if file is not None:
        content = _content(file)
        return content.file_ending, len(content.channel_names)
    names = [entry.name for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    endings = Counter(name[match.end() :] for name in names if (match := CASE.match(name)))
    return (endings.most_common(1)[0][0] if endings else "?"), 0


def labels_meaning(folder: Path) -> NnunetMeaning | None:
    """What the numbers of the labels in a folder such as labelsTs/ mean; None where no dataset.json of nnU-Net lies there.

    It may lie in the folder itself, as where nnU-Net predicts into, or in the one above.

    Raises:
        FormatError: it is not as the docstring of the module says.
    """
    file = _dataset_file(folder)
    return None if file is None else _meaning(_content(file), file)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as the docstring of the module says.

    Raises:
        OutputError: the place is not writable or already holds samples, there is no sample, or one has no truth or image, an
            unsafe key, or other classes, channels or number of axes than the first; or its values fit no file.
    """
    root = Path(path)
    with Journal(root, "nnunet", samples) as journal:
        kind = next(({name: record[name] for name in ("ending", "channels", "regions")} for record in journal.records()), None)
        for sample in journal.samples():
            truth = truth_of(sample)
            if kind is None:
                is_overlap = len(truth.planes) > 1 and not truth.instance_ids.any() and not any(truth.classes.is_thing)
                are_regions = bool(truth.classes.regions) or is_overlap
                kind = {"ending": _ending(sample), "channels": len(sample.image), "regions": are_regions}
            _check(sample, kind)
            numbers = (_region_numbers if kind["regions"] else _class_numbers)(truth, sample.key)
            _write_case(root, sample, numbers, kind["ending"])
            journal.add(sample, {**kind, "has_void": bool((numbers == _void(truth, kind)).any())})
        if kind is None:
            raise OutputError(f"no sample was given, so nothing was written to {root}; give at least one")
        has_void = any(record["has_void"] for record in journal.records())
        replace_file(root / "dataset.json", _dataset_json(journal, kind, has_void=has_void))


def _content(path: Path) -> _Content:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FormatError(
            f"{path} cannot be read ({error.strerror}); nnU-Net needs it beside imagesTr/ and labelsTr/"
        ) from error
    try:
        return TypeAdapter(_Content).validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "its JSON"
        raise FormatError(f"{path}: {place}: {first['msg']}; correct it there") from error


def _meaning(content: _Content, path: Path) -> NnunetMeaning:
    """Classes and numbers of a dataset.json."""
    labels, ours = dict(content.labels), content.segwright
    ignored = labels.pop(IGNORE, None)
    are_regions = any(isinstance(label, list) and len(label) > 1 for label in labels.values())
    if are_regions or ours is not None and ours.zero == "nothing":
        labels.pop(BACKGROUND, None)
    numbers = {name: [label] if isinstance(label, int) else label for name, label in labels.items()}
    flat = [number for of_label in numbers.values() for number in of_label]
    if isinstance(ignored, list) or not flat or not all(numbers.values()) or not are_regions and len(set(flat)) < len(flat):
        raise FormatError(f"{path}: labels are {str(content.labels)[:200]}; each class needs its number, and ignore one")
    if are_regions and len(labels) * len(flat) > VALUES * MAX_REGIONS:
        raise FormatError(f"{path}: labels hold {len(labels)} names and {len(flat)} numbers, more than files can; shorten them")
    if ours is not None and len(ours.colors) == len(ours.is_thing) == len(numbers) + 1 and are_regions:  # with the background
        ours = ours.model_copy(update={"colors": ours.colors[1:], "is_thing": ours.is_thing[1:]})
    regions = _in_order(numbers, content.regions_class_order, path) if are_regions else ()
    try:
        classes = Classes.of(
            [*numbers], colors=ours.colors if ours else None, is_thing=ours.is_thing if ours else None, regions=regions
        )
    except SettingError as error:
        raise FormatError(f"{path}: {error}") from error
    class_of = np.full(VALUES, UNKNOWN, np.int32)
    class_of[0] = NOTHING
    for index, of_label in enumerate(numbers.values()):
        class_of[of_label] = of_label if are_regions else index
    if ignored is not None:
        class_of[ignored] = VOID
    return NnunetMeaning(classes, class_of)


def _in_order(numbers: dict[str, list[int]], order: list[int] | None, path: Path) -> list[list[int]]:
    """The numbers in each region, first of all the one that it writes: by `order`, or one that lies in no later region.

    Raises:
        FormatError: the order has not a number for each region that lies in it.
    """
    if order is None:
        later = [{each for inside in [*numbers.values()][k + 1 :] for each in inside} for k in range(len(numbers))]
        order = [
            next((n for n in inside if n not in after), inside[0])
            for inside, after in zip(numbers.values(), later, strict=True)
        ]
    if len(order) != len(numbers) or any(n not in inside for n, inside in zip(order, numbers.values(), strict=True)):
        raise FormatError(
            f"{path}: regions_class_order is {order}, and the regions are {numbers}; give for each, in their order, a number "
            "that lies in it, which it writes over the regions before it"
        )
    return [[n, *(other for other in inside if other != n)] for n, inside in zip(order, numbers.values(), strict=True)]


def read_labels(path: Path) -> tuple[np.ndarray, Grid]:
    """The numbers 0..65535 of a volume or an image of labels (*S), and where they are.

    Raises:
        FormatError: the file cannot be read, or holds other numbers.
    """
    if volume_file.suffix_of(path):
        return read_number_volume(path)
    numbers = read_mask(path)
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= VALUES:
        raise FormatError(f"{path} holds the numbers {numbers.min()}..{numbers.max()}; labels are 0..{VALUES - 1}")
    return numbers, Grid(numbers.shape)


def _ending(sample: Sample) -> str:
    if len(sample.grid.shape) == 3:
        return ".nii.gz"
    is_wide = sample.image.dtype == np.uint16
    return ".png" if sample.image.dtype == np.uint8 or is_wide else ".tif"


def _check(sample: Sample, kind: dict[str, Any]) -> None:
    """Check that a sample can lie beside the first one."""
    ending = _ending(sample)
    if not len(sample.image):
        raise OutputError(f"sample {sample.key!r} has no image, which nnU-Net needs; write to coco, or add the images")
    if ending != kind["ending"] and (ending, kind["ending"]) != (".png", ".tif"):
        raise OutputError(
            f"sample {sample.key!r} ({sample.image.dtype}, {len(sample.grid.shape)}D) needs {ending}, the first one "
            f"{kind['ending']}, and nnU-Net knows one ending per data set; write them to two folders"
        )
    if len(sample.image) != kind["channels"]:
        raise OutputError(
            f"sample {sample.key!r} has {len(sample.image)} channels, the first one {kind['channels']}; nnU-Net needs one "
            "number of channels: write them to two folders"
        )
    classes = truth_of(sample).classes
    taken = {BACKGROUND, IGNORE} & {*classes.names[1 - _first(classes) :]}
    if taken:
        raise OutputError(
            f"sample {sample.key!r} has a class {min(taken)!r}, which nnU-Net keeps for number 0 ('background', the first) "
            "or for void ('ignore'); rename it in the source, or write to mask_folder"
        )


def _first(classes: Classes) -> int:
    """The number of the first class: 0 for a background, else 1."""
    return 0 if classes.names[0] == BACKGROUND else 1


def _void(truth: Segmentation, kind: dict[str, Any]) -> int:
    if kind["regions"]:
        return 1 + max(max(numbers) for numbers in _regions_of(truth.classes) if numbers)
    return len(truth.classes) + _first(truth.classes)


def _regions_of(classes: Classes) -> Sequence[Sequence[int]]:
    """The numbers that lie in each class: as `Classes.regions` says, else one for each set of classes but the background."""
    if classes.regions:
        return classes.regions
    count = len(classes) - 1 + _first(classes)
    bits: list[list[int]] = [[] for _ in range(1 - _first(classes))]  # none in a background
    for bit in range(count):
        first = (2 << bit) - 1  # as where each lies in all before it
        bits.append([first, *(n for n in range(1 << count) if n >> bit & 1 and n != first)])
    return bits


def _class_numbers(truth: Segmentation, key: str) -> np.ndarray:
    """The number at each pixel: that of its class, and after them that of void."""
    class_map, _ = to_maps(truth)
    first, count = _first(truth.classes), len(truth.classes)
    if count + first >= VALUES:
        raise OutputError(f"sample {key!r} has {count} classes, 16-bit labels hold {VALUES - 2}; merge some")
    numbers = class_map + first
    numbers[class_map == NOTHING] = 0 if first else count
    numbers[class_map == VOID] = count + first
    return numbers


def _region_numbers(truth: Segmentation, key: str) -> np.ndarray:
    """The number at each pixel, which says in which regions it lies."""
    first = _first(truth.classes)
    count = len(truth.classes) - 1 + first
    if count > MAX_REGIONS and not truth.classes.regions:
        raise OutputError(f"sample {key!r} has {count} classes that overlap, 16-bit labels hold {MAX_REGIONS}; write to coco")
    void = _void(truth, {"regions": True})
    numbers = region_numbers(truth, _regions_of(truth.classes), void)
    if not first:
        numbers[(truth.planes <= 0).all(axis=0)] = void  # neither a region nor the background
    return numbers


def _write_case(root: Path, sample: Sample, numbers: np.ndarray, ending: str) -> None:
    stored = numbers.astype(np.uint8 if numbers.max(initial=0) < 256 else np.uint16)
    name = sample.key
    if ending == ".nii.gz":
        for channel in range(len(sample.image)):
            place = root / "imagesTr" / f"{name}_{channel:04d}{ending}"
            volume_file.write_volume(place, sample.image[channel : channel + 1], sample.grid)
        volume_file.write_volume(root / "labelsTr" / f"{name}{ending}", stored[None], sample.grid)
        return
    if ending == ".png" and len(sample.image) == 3 and sample.image.dtype == np.uint8:
        write_image(root / "imagesTr" / f"{name}_0000", sample.image)
    else:
        for channel, values in enumerate(sample.image):
            write_values(root / "imagesTr" / f"{name}_{channel:04d}{ending}", values)
    write_values(root / "labelsTr" / f"{name}{ending}", stored)


def _dataset_json(journal: Journal, kind: dict[str, Any], *, has_void: bool) -> bytes:
    classes, first = journal.classes, _first(journal.classes)
    labels: dict[str, int | list[int]] = {BACKGROUND: 0}
    foreground: Sequence[str] = classes.names[1 - first :]
    content: dict[str, Any] = {}
    if kind["regions"]:
        regions = [numbers for numbers in _regions_of(classes) if numbers]
        labels |= {name: sorted(numbers) for name, numbers in zip(foreground, regions, strict=True)}
        content["regions_class_order"] = [numbers[0] for numbers in regions]
    else:
        labels |= {name: number for number, name in enumerate(foreground, 1)}
    if has_void:
        labels[IGNORE] = 1 + max(number for of_label in labels.values() for number in numbers_of_class(of_label))
    channels = kind["channels"]
    names = ["R", "G", "B"] if channels == 3 and kind["ending"] != ".nii.gz" else [f"channel_{k}" for k in range(channels)]
    return json_text(
        {
            "channel_names": {str(index): name for index, name in enumerate(names)},
            "labels": labels,
            **content,
            "numTraining": sum(1 for _ in journal.records()),
            "file_ending": kind["ending"],
            "segwright": {
                "colors": [list(color) for color in classes.colors],
                "is_thing": list(classes.is_thing),
                "zero": "nothing" if first else BACKGROUND,
            },
        },
        indent=1,
    ).encode()
