"""Image files below a folder: their keys, their order, and how to find one by the name that an annotation file gives it."""

import os
import re
from collections import Counter
from functools import cached_property
from pathlib import Path, PurePosixPath

from segwright.codecs.image_file import SUFFIXES
from segwright.core.errors import FormatError

MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "segmentationclass", "segmentations"),
    *("segmentation", "gt", "gts", "ground_truth", "groundtruth", "ground-truth", "targets", "target", "label_maps", "ann_dir"),
)
TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "test", "testing")
UNSAFE = re.compile(r'[<>:"|?*\\\x00-\x1f]')  # characters that some file system refuses
SHOWN = 3  # examples in a message; the count tells the rest


class ImageIndex:
    """The image files below a folder by name. Only files that lie there are ever found, whatever the name says.

    Hidden folders and, where an image has the same name, folders of masks are passed over.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, name: str) -> Path | None:
        """The file that a name such as "val/0001.png", "0001.png" or an address ending so means; None if there is none.

        Raises:
            FormatError: several files fit equally well.
        """
        parts = PurePosixPath(name.replace("\\", "/")).parts
        fitting = self._by_name.get(parts[-1], []) if parts else []
        if len(fitting) < 2:
            return fitting[0] if fitting else None

        def fit(path: Path) -> tuple[int, bool]:
            common = 0
            for given, there in zip(reversed(parts), reversed(path.parts), strict=False):
                if given != there:
                    break
                common += 1
            return common, not any(part.lower() in MASK_FOLDERS for part in path.relative_to(self.root).parts)

        best = max(map(fit, fitting))
        chosen = [path for path in fitting if fit(path) == best]
        if len(chosen) > 1:
            raise FormatError(f"{name!r} may be {chosen[0]} or {chosen[1]}; rename or move one")
        return chosen[0]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        index: dict[str, list[Path]] = {}
        for _, path in images_below(self.root):
            index.setdefault(path.name, []).append(path)
        return index


def images_below(folder: Path) -> list[tuple[str, Path]]:
    """Stem (path below the folder without suffix) and path of all images below a folder in name order, but hidden ones."""
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]  # os.walk enters what is left here
        below = Path(place).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        files += [
            (prefix + name.rpartition(".")[0], Path(place, name))
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(files, key=lambda entry: (natural(entry[0]), entry[1].name))


def found(path: Path) -> str:
    """What lies in a folder, for messages: "20 .jpg, 3 .txt and the folders a/, b/"."""
    entries = sorted(path.iterdir())
    kinds = Counter(entry.suffix.lower() or "files without suffix" for entry in entries if entry.is_file())
    folders = [f"{entry.name}/" for entry in entries if entry.is_dir()]
    files = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(SHOWN))
    shown = f"{len(folders)} folders {', '.join(folders[:SHOWN])}{', ...' if len(folders) > SHOWN else ''}" if folders else ""
    return " and ".join(part for part in (files, shown.replace("1 folders", "the folder")) if part) or "it is empty"


def safe_key(name: str) -> str:
    """A relative path without its suffix as a key: a/b becomes a__b, and characters that file systems refuse become _."""
    return UNSAFE.sub("_", name.replace("/", "__")).strip(". ") or "_"


def split_of(key: str) -> tuple[str, str]:
    """The part of the data set that a key such as "train__a" names, and the rest of it; "" where it names none."""
    first, mark, rest = key.partition("__")
    return (first, rest) if mark and rest and first.lower() in TRAIN_NAMES + VAL_NAMES else ("", key)


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which frame_9 comes before frame_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), part) if part.isdecimal() else (-1, part.lower()) for part in parts] + [(0, name)]
