"""Image files below a folder: their keys, their order, and how to find one by the name that an annotation file gives it."""

import os
import re
from collections import Counter
from collections.abc import Collection
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from segwright.codecs.image_file import SUFFIXES
from segwright.core.errors import FormatError
from segwright.core.spelling import composed

MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "segmentationclass", "segmentations"),
    *("segmentation", "gt", "gts", "ground_truth", "groundtruth", "ground-truth", "targets", "target", "label_maps", "ann_dir"),
)
MASKS = frozenset(MASK_FOLDERS)
TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "test", "testing")
UNSAFE = re.compile(r'[<>:"|?*\\\x00-\x1f\ud800-\udfff]')  # what some file system refuses, and bytes that are no UTF-8
SHOWN = 3  # examples in a message; the count tells the rest


class ImageIndex:
    """The image files below a folder by name. Only files that lie there are ever found, whatever the name says.

    Hidden folders and those in `without` are passed over, and folders of masks where the name does not say them: a mask is no
    image.
    """

    def __init__(self, root: Path, without: Collection[Path] = ()) -> None:
        self.root, self._without = root, {folder.absolute() for folder in without}

    def find(self, name: str) -> Path | None:
        """The file that a name such as "val/0001.png", "0001.png" or an address ending so means; None if there is none.

        Raises:
            FormatError: several files fit equally well.
        """
        parts = PurePosixPath(composed(name.replace("\\", "/"))).parts
        fits: dict[int, list[Path]] = {}  # by how many of the last parts are those of the name
        for folders, path in self._by_name.get(parts[-1], []) if parts else []:
            pairs = enumerate(zip(reversed(parts), map(composed, reversed(path.parts)), strict=False))
            fit = next((number for number, (given, there) in pairs if given != there), len(parts))
            if MASKS.isdisjoint(folders[: len(folders) + 1 - fit]):
                fits.setdefault(fit, []).append(path)
        if not fits:
            return None
        first, *others = fits[max(fits)]
        if others:
            raise FormatError(f"{name!r} may be {first} or {others[0]}; rename or move one")
        return first

    @cached_property
    def _by_name(self) -> dict[str, list[tuple[list[str], Path]]]:
        """The files of each name, with the folders on the way to them, in lower case."""
        index: dict[str, list[tuple[list[str], Path]]] = {}
        for stem, path in images_below(self.root):
            if not self._without or path.parent.absolute() not in self._without:
                index.setdefault(composed(path.name), []).append((stem.lower().split("/")[:-1], path))
        return index


def images_below(folder: Path) -> list[tuple[str, Path]]:
    """Stem (path below the folder without suffix, composed) and path of all images below a folder in name order.

    Hidden files and folders are passed over, and so are what macOS and Windows leave beside files ("._a.png", "Thumbs.db").
    """
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # os.walk enters what is left here
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        files += [
            (composed(prefix + name.rpartition(".")[0]), Path(place, name))
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(files, key=lambda entry: (natural(entry[0]), entry[1].name))


def found(path: Path) -> str:
    """What lies in a folder, for messages: "20 .jpg, 3 .txt and the folders a/, b/"."""
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    kinds = Counter(entry.suffix.lower() or "files without suffix" for entry in entries if entry.is_file())
    folders = [f"{entry.name}/" for entry in entries if entry.is_dir()]
    files = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(SHOWN))
    shown = f"{len(folders)} folders {', '.join(folders[:SHOWN])}{', ...' if len(folders) > SHOWN else ''}" if folders else ""
    return " and ".join(part for part in (files, shown.replace("1 folders", "the folder")) if part) or "it is empty"


def as_spelt(path: Path) -> Path:
    """A path as it is spelt on disk, where something is there whose name looks the same; else as it was given."""
    if str(path).isascii() or os.path.exists(path):  # noqa: PTH110  (no error, whatever the name)
        return path
    folder = as_spelt(path.parent)
    try:
        return folder / _spellings(folder, folder.stat().st_mtime_ns).get(composed(path.name), path.name)
    except (OSError, ValueError):
        return path


@lru_cache(maxsize=16)
def _spellings(folder: Path, _changed_ns: int) -> dict[str, str]:
    """The names in a folder as they are spelt, by what they look like; read again when the folder changed."""
    return {composed(name): name for name in os.listdir(folder)}  # noqa: PTH208


def safe_key(name: str) -> str:
    """A relative path without its suffix as a key: a/b becomes a__b, and characters that file systems refuse become _."""
    return UNSAFE.sub("_", composed(name).replace("/", "__")).strip(". ") or "_"


def split_of(key: str) -> tuple[str, str]:
    """The part of the data set that a key such as "train__a" names, and the rest of it; "" where it names none."""
    first, mark, rest = key.partition("__")
    return (first, rest) if mark and rest and first.lower() in TRAIN_NAMES + VAL_NAMES else ("", key)


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which frame_9 comes before frame_10, the same for both spellings of a name."""
    name = composed(name)
    parts = re.split(r"(\d+)", name)
    return [(int(part), part) if part.isdecimal() else (-1, part.lower()) for part in parts] + [(0, name)]
