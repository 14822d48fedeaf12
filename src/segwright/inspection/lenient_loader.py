"""A path to the samples that lie there, in parts, with whatever keeps others from opening it as findings."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segwright.codecs.volume_file import suffix_of
from segwright.codecs.zarr_image import is_zarr
from segwright.core import Classes, Dataset
from segwright.core.errors import FormatError, SegwrightError
from segwright.data.splits import cut
from segwright.formats import dataset_file, label_encoding, mask_folder, ome_zarr, open_dataset, readers, volume
from segwright.formats.guessed_meaning import guess_meaning, shown_values
from segwright.formats.image_index import TRAIN_NAMES, VAL_NAMES, split_of
from segwright.formats.mask_file import read_mask_file
from segwright.formats.pairing import Files
from segwright.formats.volume_masks import meaning_of_masks, read_number_volume
from segwright.inspection import split_leakage
from segwright.inspection.finding import Finding, Fix, plural, some
from segwright.inspection.sample_scan import Item
from segwright.inspection.unpaired_files import MaskFiles, scan
from segwright.inspection.volume_files import about_volumes
from segwright.inspection.zarr_files import about_zarrs


@dataclass(frozen=True, eq=False)
class LenientData:
    """What lies at a path. `root` is the folder of its dataset.toml, None for drawn scenes; `known` what that file says.

    `dataset` is None where it cannot be opened as every command would, and `refusal` says why. `named` is the content of its
    classes.json or [masks], None where neither is; `has_mask_files` tells whether masks are files of numbers, to be held
    against that. `is_split` is False where the parts are only what open_splits would hold out. `findings` are about files.
    """

    source: str
    root: Path | None
    known: dataset_file.DatasetFile | None
    dataset: Dataset | None
    refusal: str
    classes: Classes | None
    items: tuple[Item, ...]
    has_mask_files: bool
    named: dict[str, Any] | None
    is_split: bool
    findings: tuple[Finding, ...]


def open_leniently(path: Path | str, format: str | None = None) -> LenientData:
    """The samples at a path, also those of a folder of masks that `open_dataset` refuses.

    Raises:
        UsageError: nothing there looks like a data set, or the dataset.toml is wrong.
    """
    known = dataset_file.read(path)
    root = dataset_file.folder_of(path) if Path(path).exists() else None
    dataset, refusal = None, None
    try:
        dataset = open_dataset(path, format)
    except SegwrightError as error:
        refusal = error
    drop = frozenset(known.drop) if known else frozenset()
    scans = _scans(Path(path), format, drop) if root is not None else {}
    if dataset is None and not scans and not _is_recognised(path, format):
        raise refusal or FormatError(f"{path} cannot be opened")
    findings = [*_missing(scans), *([_refused(refusal)] if refusal else []), *about_volumes(_pairs(scans))]
    findings += about_zarrs(root) if root is not None and _has_zarrs(Path(path), dataset) else []
    if dataset is None and any(finding.name == "missing-partner" for finding in findings):
        findings = [finding for finding in findings if finding.name != "cannot-open"]
    classes, items = _items(dataset, scans)
    items, is_split = _in_parts(items, known.groups if known else ())
    named = named_classes(root) if root is not None else None
    return LenientData(
        source=str(path),
        root=root,
        known=known,
        dataset=dataset,
        refusal=str(refusal or ""),
        classes=classes,
        items=tuple(items),
        has_mask_files=bool(scans) and (classes is not None or named is None),
        named=named,
        is_split=is_split,
        findings=tuple(findings),
    )


def _has_zarrs(path: Path, dataset: Dataset | None) -> bool:
    """Whether a data set has images or masks in Zarrs."""
    return ome_zarr.matches(path) or (dataset is not None and any(map(is_zarr, dataset.image_files.values())))


def named_classes(root: Path) -> dict[str, Any] | None:
    """What [masks] or classes.json says, in the folder of the data or in the one above; None where neither says a word."""
    table = dataset_file.masks_table(root)
    if table is not None:
        return table
    for place in (root, root.absolute().parent):
        try:
            return label_encoding.read_table(place / label_encoding.CLASSES_FILE)
        except FormatError:
            continue
    return None


def _scans(path: Path, format: str | None, drop: frozenset[str]) -> dict[str, MaskFiles]:
    """The image and mask files of each part, by the beginning of its keys; empty for any other format."""
    if format not in (None, "mask_folder", "volume") or not path.is_dir():
        return {}
    if mask_folder.matches(path):
        found = _scan(path, format, drop)
        return {"": found} if found else {}
    scans = {}
    for entry in sorted(path.iterdir(), key=lambda entry: (entry.name.lower() not in TRAIN_NAMES, entry.name)):
        if entry.is_dir() and entry.name.lower() in TRAIN_NAMES + VAL_NAMES and mask_folder.matches(entry):
            prefix = f"{entry.name}__"
            found = _scan(entry, format, {key.removeprefix(prefix) for key in drop if key.startswith(prefix)})
            if found is None:
                return {}
            scans[prefix] = found
    return scans


def _scan(path: Path, format: str | None, drop: Collection[str]) -> MaskFiles | None:
    """The image and mask files of one part, None if another format reads it."""
    special = {name for name, module in readers().items() if name != "mask_folder" and module.matches(path)}
    if format is None and special - {"volume"}:
        return None
    return scan(path, drop, are_volumes=(format or min(special, default="")) == "volume")


def _is_recognised(path: Path | str, format: str | None) -> bool:
    """Whether a format was named or one alone claims the path, so that it is a data set, if a broken one."""
    if format is not None:
        return Path(path).exists()
    claiming = [name for name, module in readers().items() if module.matches(path)]
    return len(claiming) == 1 or len([name for name in claiming if name != "mask_folder"]) == 1


def _missing(scans: dict[str, MaskFiles]) -> list[Finding]:
    images = [prefix + key for prefix, files in scans.items() for key in files.without_mask]
    masks = [prefix + key for prefix, files in scans.items() for key in files.without_image]
    if not images and not masks:
        return []
    said = [f"{plural(len(images), 'image')} without a mask ({some(images)})"] if images else []
    said += [f"{plural(len(masks), 'mask')} without an image ({some(masks)})"] if masks else []
    remedy, fix = "Add the missing files under the same names, or leave these out by drop in dataset.toml.", None
    alike = {*map(_plain, images)} & {*map(_plain, masks)}
    if alike:
        remedy = f"Names of {len(alike)} of them differ in capitals or blanks alone: rename the masks like their images."
    else:
        fix = Fix(drop=(*images, *masks))
    return [
        Finding(
            name="missing-partner",
            level="error",
            evidence=f"{' and '.join(said)}; every command refuses such a folder.",
            remedy=remedy,
            numbers={"images_without_mask": len(images), "masks_without_image": len(masks)},
            keys=(*images, *masks),
            fix=fix,
        )
    ]


def _plain(key: str) -> str:
    return "".join(key.split()).casefold()


def _refused(error: SegwrightError) -> Finding:
    return Finding(
        name="cannot-open", level="error", evidence=str(error), remedy="Follow the message; no command can open it as it is."
    )


def _items(dataset: Dataset | None, scans: dict[str, MaskFiles]) -> tuple[Classes | None, list[Item]]:
    """The classes, where they are known, and the samples, their files known where they are pairs of image and mask."""
    pairs = _pairs(scans)
    if dataset is not None:
        return dataset.classes, [
            Item(key, "", partial(dataset.load, key), *(pairs.get(key) or (dataset.image_files.get(key), None)))
            for key in dataset.keys
        ]
    meaning = _meaning(scans)
    files = {key: Files(*pair) for key, pair in pairs.items()}
    are_volumes = any(map(suffix_of, (mask for _, mask in pairs.values())))
    reader = volume.Reader(files, meaning) if are_volumes else mask_folder.Reader(files, meaning)
    return meaning.classes if meaning else None, [Item(key, "", partial(reader, key), *pair) for key, pair in pairs.items()]


def _pairs(scans: dict[str, MaskFiles]) -> dict[str, tuple[Path, Path]]:
    """Image and mask of each key over all parts."""
    return {prefix + key: pair for prefix, files in scans.items() for key, pair in files.pairs.items()}


def _meaning(scans: dict[str, MaskFiles]) -> label_encoding.Meaning | None:
    """What the masks of a folder that cannot be opened mean; None where that cannot be told either."""
    pairs = [pair for files in scans.values() for pair in files.pairs.values()]
    if not pairs:
        return None
    root = next(iter(pairs))[0]
    try:
        while root != root.parent:
            root = root.parent
            if mask_folder.matches(root):
                break
        meaning = label_encoding.written_meaning(root, is_above=True)
        if meaning is not None:
            return meaning
    except FormatError:
        return None
    are_volumes = any(suffix_of(mask) for _, mask in pairs)
    readable = []
    for _, mask in pairs:
        try:
            read_number_volume(mask) if are_volumes else shown_values(read_mask_file(mask))
            readable.append(mask)
        except FormatError:
            continue
    if not readable:
        return None
    try:
        return meaning_of_masks(readable, None)[0] if are_volumes else guess_meaning(readable)
    except FormatError:  # the numbers may mean two things, as a finding says
        return None


def _in_parts(items: Sequence[Item], groups: Sequence[Sequence[str]]) -> tuple[list[Item], bool]:
    """The samples with the part that each is in, and whether the data has such parts; else as `open_splits` cuts them."""
    parts = {split_of(item.key)[0] for item in items}
    if len(parts) > 1:
        return [_in(item, split_of(item.key)[0]) for item in items], True
    if len(items) < 2 or parts != {""}:
        return [_in(item, next(iter(parts))) for item in items], False
    in_val = set(cut([item.key for item in items], groups)[1])
    return [_in(item, split_leakage.HELD_OUT if item.key in in_val else split_leakage.REST) for item in items], False


def _in(item: Item, part: str) -> Item:
    return Item(item.key, part, item.load, item.image, item.mask)
