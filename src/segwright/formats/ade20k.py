"""ADE20K for scene parsing: images/training/X.jpg with annotations/training/X.png, and validation/ beside training/.

    ROOT/images/training/ADE_train_00000001.jpg           also validation/, testing/
    ROOT/annotations/training/ADE_train_00000001.png      class numbers
    ROOT/objectInfo150.txt                                of the release
    ROOT/instances/training/ADE_train_00000001.png        ours: object numbers, where there are any
    ROOT/classes.json                                     ours, always written; see label_encoding.py

The key of the first file is train__ADE_train_00000001. The classes are the 150 of the release, all of them stuff, as it
tells no objects apart; where classes.json or dataset.toml name others, it is those.

Two conventions are in use. In the release 0 is void and class k is stored as k + 1 (1..150). Others store 0..149, and 255 for
void. If classes.json or dataset.toml tell ("values", "ignore_index"), this holds. Else the files do: a number that only one of
both can hold, 150 or 255, among 200 of them; else, in the release, which names its files ADE_..., the first convention holds.

What is written: the convention of the release, pixels of no segment as the number after the last class, which classes.json
then names; 16 bits for more than 254 classes; images without loss. A key such as train__x goes to training/, val__x to
validation/, and one without such a beginning to training/no_split.

Lost: of overlapping segments the later covers the earlier. Not kept: scores, pixel sizes.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from segwright.codecs.image_writer import write_values
from segwright.codecs.json_stream import top_keys
from segwright.core import VOID, Classes, Dataset, Sample
from segwright.core.errors import FormatError, OutputError
from segwright.formats.image_index import found, safe_key, split_of
from segwright.formats.label_encoding import (
    CLASSES_FILE,
    VOID_8_BIT,
    VOID_16_BIT,
    Meaning,
    meaning_of,
    present,
    read_numbers,
    write_classes,
    written_meaning,
)
from segwright.formats.label_maps import NOTHING, to_maps
from segwright.formats.mask_folder import Reader, write_numbers
from segwright.formats.named_objects import truth_2d
from segwright.formats.pairing import NUMBER_FOLDER, Files, by_stem, keys_of_parts
from segwright.formats.resume_journal import Journal

LOSES = "of overlapping segments the later covers the earlier"
IMAGES, MASKS = "images", "annotations"
PARTS = {"training": "train", "validation": "val", "testing": "test"}  # folders, and how their keys begin
NO_SPLIT = "no_split"  # the folder of keys that begin otherwise
RELEASE_LIST, RELEASE_NAME = "objectInfo150.txt", "ADE_"
LOOKED_AT = 200  # masks, spread over the set: a second, and a class or void that fills 2 % of them is seen for sure

NAMES = (
    "wall|building|sky|floor|tree|ceiling|road|bed|windowpane|grass|cabinet|sidewalk|person|earth"
    "|door|table|mountain|plant|curtain|chair|car|water|painting|sofa|shelf|house|sea|mirror|"
    "rug|field|armchair|seat|fence|desk|rock|wardrobe|lamp|bathtub|railing|cushion|base|box|"
    "column|signboard|chest of drawers|counter|sand|sink|skyscraper|fireplace|refrigerator|grandstand|"
    "path|stairs|runway|case|pool table|pillow|screen door|stairway|river|bridge|bookcase|blind|"
    "coffee table|toilet|flower|book|hill|bench|countertop|stove|palm|kitchen island|computer|"
    "swivel chair|boat|bar|arcade machine|hovel|bus|towel|light|truck|tower|chandelier|awning|"
    "streetlight|booth|television|airplane|dirt track|apparel|pole|land|bannister|escalator|ottoman|"
    "bottle|buffet|poster|stage|van|ship|fountain|conveyer belt|canopy|washer|plaything|swimming pool"
    "|stool|barrel|basket|waterfall|tent|bag|minibike|cradle|oven|ball|food|step|tank|trade name"
    "|microwave|pot|animal|bicycle|lake|dishwasher|screen|blanket|sculpture|hood|sconce|vase|"
    "traffic light|tray|ashcan|fan|pier|crt screen|plate|monitor|bulletin board|shower|radiator|glass"
    "|clock|flag"
)
COLORS = (  # as the benchmark's own pictures show the classes: red, green, blue of one after the other
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33ff06528fff8cccff04"
    "ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffff"
    "e0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe000"
    "99ff000000ffff470000ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff00"
    "0052ff00ff2900ffad0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ff"
    "ff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ff"
    "ff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cff"
    "b8ff000085ffffd60019c2c266ff005c00ff"
)
CLASSES = Classes.of(NAMES.split("|"), colors=list(zip(*[iter(bytes.fromhex(COLORS))] * 3, strict=True)))
_STUFF = (  # the numbers of the classes that are no things where the benchmark counts objects
    *(0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59, 60, 61, 63, 68, 77, 79, 84),
    *(91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128, 131, 140, 141, 145),
)
PANOPTIC_CLASSES = replace(CLASSES, is_thing=tuple(k not in _STUFF for k in range(len(CLASSES))))


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with images/training (or validation) and the same in annotations, of the release or ours."""
    root = Path(path)
    parts = [part for part in PARTS if (root / IMAGES / part).is_dir() and (root / MASKS / part).is_dir()]
    if not parts and (root / IMAGES).is_dir():
        return False
    parts = parts or [part for part in PARTS if (root / MASKS / part).is_dir()]
    is_ours = "values" in top_keys(root / CLASSES_FILE)
    return bool(parts) and (is_ours or _is_release(root, ((root / MASKS / part).glob("*") for part in parts)))


def read(path: Path | str) -> Dataset:
    """The samples of a folder in name order, training first.

    Raises:
        FormatError: the folder is not as above; its files contradict each other, or do not tell which convention holds.
    """
    root = Path(path)
    if not (root / MASKS).is_dir():
        there = found(root) if root.is_dir() else "it is no folder"
        raise FormatError(f"{root} has no folder {MASKS} ({there}); give the folder that holds {IMAGES}/ and {MASKS}/")
    images, masks, numbers = (by_stem(root / folder) for folder in (IMAGES, MASKS, NUMBER_FOLDER))
    names = keys_of_parts(root, images, masks, _key)
    files = {key: Files(images.get(name), masks[name], numbers.get(name)) for key, name in names.items()}
    meaning = _meaning(root, list(masks.values()))
    image_files = {key: entry.image for key, entry in files.items() if entry.image is not None}
    return Dataset(str(root), meaning.classes, tuple(files), Reader(files, meaning, bool(images)), image_files)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as the docstring of this module says.

    Raises:
        OutputError: as `mask_folder.write`; or a sample is a volume, or there are more than 65533 classes.
    """
    root = Path(path)
    with Journal(root, "ade20k", samples) as journal:
        for sample in journal.samples():
            truth = truth_2d(sample, "ade20k")
            nothing = len(truth.classes) + 1
            if nothing >= VOID_16_BIT:
                raise OutputError(f"ade20k holds {VOID_16_BIT - 2} classes, there are {nothing - 1}; merge some")
            class_map, numbers = to_maps(truth)
            stored = class_map.astype(np.int32) + 1  # VOID, -1, becomes 0
            stored[class_map == NOTHING] = nothing
            place = _place(sample.key)
            write_values(root / MASKS / f"{place}.png", stored.astype(np.uint8 if nothing <= VOID_8_BIT else np.uint16))
            write_numbers(root / NUMBER_FOLDER / place, numbers)
            journal.write_image(sample, root / IMAGES / place)
            journal.add(sample, {"has_nothing": bool((class_map == NOTHING).any())})
        count = len(journal.classes)
        has_nothing = any(record["has_nothing"] for record in journal.records())
        write_classes(
            root / CLASSES_FILE,
            journal.classes,
            values=range(1, count + 1),
            ignore_index=0,
            nothing_index=count + 1 if has_nothing else None,
        )


def _meaning(root: Path, masks: Sequence[Path]) -> Meaning:
    """What the numbers mean: as written down, or by the convention that the files show."""
    written = written_meaning(root)
    if written is not None and (written.class_of[0] != 0 or (written.class_of == VOID).any()):
        return written
    classes = CLASSES if written is None else written.classes
    count = len(classes)
    void = VOID_8_BIT if count <= VOID_8_BIT else VOID_16_BIT
    seen = _numbers_in(masks[:: max(1, -(-len(masks) // LOOKED_AT))])
    is_from_1, is_from_0 = (count != void and number in seen for number in (count, void))
    if is_from_1 and is_from_0:
        raise FormatError(
            f"{root}: {seen[count]} holds {count}, as where class k is stored as k + 1, and {seen[void]} holds {void}, as "
            f"where {void} is void; {_decide(count, void)}"
        )
    if not is_from_1 and not is_from_0 and not _is_release(root, [masks]):
        raise FormatError(
            f"{root}: no mask tells whether class k is stored as k + 1 and void as 0, or class k as k and void as {void}; "
            f"{_decide(count, void)}"
        )
    content = {"classes": list(classes.names), "palette": classes.palette.tolist(), "is_thing": list(classes.is_thing)}
    if is_from_0:
        return meaning_of(content | {"ignore_index": void}, f"the convention with {void} for void")
    return meaning_of(content | {"ignore_index": 0, "values": [*range(1, count + 1)]}, "the convention with 0 for void")


def _decide(count: int, void: int) -> str:
    return (
        f'write into dataset.toml, below [masks], "ignore_index = 0" and "values = [1, 2, ..., {count}]" for the first, or '
        f'"ignore_index = {void}" for the second, and the list of "classes"; or convert the masks of one kind'
    )


def _numbers_in(masks: Sequence[Path]) -> dict[int, Path]:
    """A file for each number that is in any of these masks."""

    def look(path: Path) -> np.ndarray:
        try:
            return present(read_numbers(path))
        except FormatError:  # told when its sample is read
            return np.zeros(0, np.int64)

    with ThreadPoolExecutor() as pool:  # the decoders run outside Python's lock
        return {int(value): path for path, values in zip(masks, pool.map(look, masks), strict=True) for value in values}


def _is_release(root: Path, folders: Iterable[Iterable[Path]]) -> bool:
    """Whether the files are those of the release, by its list of classes or by the name of a file in the first folder."""
    if (root / RELEASE_LIST).is_file():
        return True
    return any(next(iter(folder), root).name.startswith(RELEASE_NAME) for folder in folders)


def _key(name: str) -> str:
    """The key of a path such as "training/X"."""
    *folders, stem = name.split("/")
    if NO_SPLIT in folders[1:]:
        return safe_key(stem)
    return safe_key("/".join([PARTS.get(folder, folder) for folder in folders[:1]] + folders[1:] + [stem]))


def _place(key: str) -> str:
    """The path, such as "training/x", that a key is written under; `_key` is the way back."""
    split, rest = split_of(key)
    folder = next((folder for folder, part in PARTS.items() if part == split), None)
    if folder is None or rest.startswith("."):  # files whose names begin so are hidden
        return f"{next(iter(PARTS))}/{NO_SPLIT}/{key}"
    return f"{folder}/{rest}"
