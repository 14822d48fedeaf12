"""Which samples a run learns from and which it holds out: what must not change while it is under way."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core import Dataset

SHOWN = 5  # keys named in a message


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The samples to train with (`train`) and those held out (`val`), and the names of the classes.

    Each key has the size of its image's file in bytes, which other pixels nearly always change and which costs nothing to ask
    for; None where no one file holds the image. Of data from two places, both parts may have a key of the same name.
    """

    train: Mapping[str, int | None]
    val: Mapping[str, int | None]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, train_set: Dataset, val_set: Dataset) -> "RunData":
        """What a run with these data sets, as its task sees them, begins with."""
        return cls(train=_bytes(train_set), val=_bytes(val_set), classes=train_set.classes.names)

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> "RunData":
        """What `dataclasses.asdict` made of it, through JSON."""
        return cls(train=table["train"], val=table["val"], classes=tuple(table["classes"]))

    def trained_and_held_out(self, now: "RunData") -> list[str]:
        """Samples that were trained with and would now be held out, where a score says how well they were learnt by heart.

        The same key in another data set is another image, mostly of other bytes.
        """
        before = [(key, size) for key, size in now.val.items() if self.val.get(key, 0) != size]
        return [key for key, size in before if self.train.get(key, 0) == size]  # 0: no file of an image is empty

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


def _differ(old: int | None, new: int | None) -> bool:
    return old is not None and new is not None and old != new


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:  # the reader says what is wrong with it
        return None


def _named(what: str, names: list[str]) -> str:
    """A subject with its verb, such as "the sample 'a' is" or "the samples 'a', 'b', ... (7) are"."""
    shown = ", ".join(map(repr, names[:SHOWN]))
    if len(names) == 1:
        return f"the {what} {shown} is"
    return f"the {what}{'es' if what == 'class' else 's'} {shown}{f', ... ({len(names)})' * (len(names) > SHOWN)} are"
