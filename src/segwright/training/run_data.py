"""Which samples a run learns from and which it holds out: what must not change while it is under way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from segwright.core import Dataset
from segwright.core.errors import SegwrightError

SHOWN = 5  # keys named in a message
LOOKED_AT = 16  # samples of each part whose contents are compared, evenly spread: they are decoded for it
PIECE = 1 << 20  # bytes from the middle of an image's file that are compared: of raw values, others have the same size


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The samples to train with (`train`) and those held out (`val`), and the names of the classes.

    Each key has the size of its image's file in bytes, which other pixels nearly always change and which costs nothing to ask
    for; None where no one file holds the image. Of data from two places, both parts may have a key of the same name.

    `looks` holds, for "train" and "val", a number for some of the samples, which other masks, or another meaning of them,
    change, and other values of the image; there is none in what an earlier version saved.
    """

    train: Mapping[str, int | None]
    val: Mapping[str, int | None]
    classes: tuple[str, ...]
    looks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, train_set: Dataset, val_set: Dataset) -> "RunData":
        """What a run with these data sets, as its task sees them, begins with; what cannot be read, training names."""
        looks = {"train": _looks(train_set), "val": _looks(val_set)}
        return cls(train=_bytes(train_set), val=_bytes(val_set), classes=train_set.classes.names, looks=looks)

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> "RunData":
        """What `dataclasses.asdict` made of it, through JSON."""
        return cls(train=table["train"], val=table["val"], classes=tuple(table["classes"]), looks=table.get("looks", {}))

    def trained_and_held_out(self, now: "RunData") -> list[str]:
        """Samples that were trained with and would now be held out, where a score says how well they were learnt by heart.

        The same key in another data set is another image, mostly of other bytes.
        """
        before = [(key, size) for key, size in now.val.items() if self.val.get(key, 0) != size]
        return [key for key, size in before if self.train.get(key, 0) == size]  # 0: no file of an image is empty

    def trained_with(self, dataset: Dataset) -> list[str]:
        """The keys of a data set whose images were trained with, and not held out."""
        return self.trained_and_held_out(RunData(train={}, val=_bytes(dataset), classes=self.classes))

    def changes(self, now: "RunData") -> list[str]:
        """What differs between the data that a run began with and those of `now`, in words; nothing where all is as it was."""
        to_val = [key for key in now.val if key in self.train and key not in self.val]
        to_train = [key for key in now.train if key in self.val and key not in self.train]
        parts = (self.train, now.train, to_val, to_train), (self.val, now.val, to_train, to_val)
        words = {
            "no longer there": [key for old, new, left, _ in parts for key in old if key not in new and key not in left],
            "new": [key for old, new, _, come in parts for key in new if key not in old and key not in come],
            "to be held out after being trained with": to_val,
            "to be trained with after being held out": to_train,
            "of another file size": [key for old, new, *_ in parts for key in old if _differ(old[key], new.get(key))],
        }
        if not any(words.values()) and self.classes == now.classes:  # else it is bound to differ
            words["of another image or mask"] = [
                key
                for part, looks in self.looks.items()
                for key, look in looks.items()
                if now.looks.get(part, {}).get(key, look) != look
            ]
        found = [f"{_named('sample', keys)} {text}" for text, keys in words.items() if keys]
        lost = [name for name in self.classes if name not in now.classes]
        more = [name for name in now.classes if name not in self.classes]
        found += [f"{_named('class', names)} {text}" for text, names in (("no longer there", lost), ("new", more)) if names]
        if self.classes != now.classes and not lost and not more:
            found.append(f"the classes were {', '.join(self.classes)} and are {', '.join(now.classes)}")
        return found


def _bytes(data: Dataset) -> dict[str, int | None]:
    files = data.image_files
    return {key: _size(files[key]) if key in files else None for key in data.keys}


def _looks(data: Dataset) -> dict[str, int]:
    """A number for what some samples hold, by their keys."""
    found = {key: _look(data, key) for key in data.keys[:: -(-len(data) // LOOKED_AT) or 1]}
    return {key: look for key, look in found.items() if look is not None}


def _look(data: Dataset, key: str) -> int | None:
    """The checksum of a truth and of a piece of its image's file, whose decoded values depend on the decoder a little."""
    file = data.image_files.get(key)
    try:
        truth = data.load(key).truth
        look = 0 if truth is None else crc32(truth.class_ids.tobytes(), crc32(truth.planes.tobytes()))
        if file is None or not file.is_file():
            return look
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - PIECE) // 2)
            return crc32(opened.read(PIECE), look)
    except (SegwrightError, OSError):
        return None


def _differ(old: int | None, new: int | None) -> bool:
    return old is not None and new is not None and old != new


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size if file.is_file() else None  # of a folder, of Zarr say, each disk tells another size
    except OSError:  # the reader says what is wrong with it
        return None


def _named(what: str, names: list[str]) -> str:
    """A subject with its verb, such as "the sample 'a' is" or "the samples 'a', 'b', ... (7) are"."""
    shown = ", ".join(map(repr, names[:SHOWN]))
    if len(names) == 1:
        return f"the {what} {shown} is"
    return f"the {what}{'es' if what == 'class' else 's'} {shown}{f', ... ({len(names)})' * (len(names) > SHOWN)} are"
