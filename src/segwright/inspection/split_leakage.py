"""Which samples belong together, and whether a split tears them apart."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from segwright.formats.image_index import TRAIN_NAMES
from segwright.inspection.finding import some

REST, HELD_OUT = "the rest", "the sixth that is held out"  # the parts of data that nobody has split


class Together:
    """The part of each key, the keys that dataset.toml keeps together, and those that are frames of one clip."""

    def __init__(
        self, parts: Mapping[str, str], known: Iterable[Sequence[str]] = (), clips: Iterable[Sequence[str]] = ()
    ) -> None:
        self._parts = parts
        self._known = {key: number for number, group in enumerate(known) for key in group}
        self._clips = {key: number for number, group in enumerate(clips) for key in group}

    def part(self, key: str) -> str:
        """The part that a sample is in."""
        return self._parts[key]

    def is_known(self, first: str, second: str) -> bool:
        """Whether dataset.toml keeps both together."""
        return first in self._known and self._known[first] == self._known.get(second)

    def is_one_clip(self, first: str, second: str) -> bool:
        """Whether both are frames of one clip, of which neighbours are alike."""
        return first in self._clips and self._clips[first] == self._clips.get(second)

    def is_torn(self, group: Sequence[str]) -> bool:
        """Whether a group lies in more than one part."""
        return len({self._parts[key] for key in group}) > 1

    def unknown(self, groups: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """The groups that dataset.toml does not keep together."""
        return [group for group in groups if not all(self.is_known(group[0], key) for key in group[1:])]

    def later(self, pair: Sequence[str]) -> str:
        """The one of a pair to leave out: that in training, so that validation stays as it is; else the second."""
        return self.all_but_one(pair)[-1]

    def all_but_one(self, group: Sequence[str]) -> list[str]:
        """The keys of a group to leave out so that one is left: in a part that is not for training where there is one."""
        ordered = sorted(group, key=lambda key: (self._parts[key].lower() in (*TRAIN_NAMES, REST), key))
        return ordered[1:]

    def example(self, group: Sequence[str]) -> str:
        """Some keys of a group, for a sentence."""
        return some(sorted(group), 2)


def groups_of(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """The keys that pairs connect, each group sorted, in the order of their first keys."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for first, second in pairs:
        parent[root(first)] = root(second)
    groups: dict[str, list[str]] = defaultdict(list)
    for key in parent:
        groups[root(key)].append(key)
    return tuple(sorted(tuple(sorted(group)) for group in groups.values()))
