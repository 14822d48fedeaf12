"""Objects that overlapping tiles see, put together: each once, and whole.

A tile's border cuts objects, and what a network says of a part of one is worth less than what it says of all of it. Where tiles
overlap they see the same pixels, so there their objects can be compared: two of one class are the same if they share more than
half of the pixels that either has there. Then:

1. Of whole objects that are the same one stays: that of which a network is sure and which lies far from its tile's border.
2. A cut object goes where another tile sees it whole, or sees a whole one that covers half of it or reaches about as far.
3. Cut objects that are left are larger than the overlap; those that are the same, or cover half of each other, become one.

Only tiles that overlap are compared, so that time and memory grow with the area.
Axes: N objects, T tiles, E pairs of objects that share pixels.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from segwright.decoding.mask_runs import MaskRuns, mask_overlaps, union_of_runs

COVERED = 0.5  # of a cut object: where another has most of it, it is no object of its own
NEAR = 2.0  # pixels of what the network sees: that close to a border nobody knows whether an object ends there
NEAR_SHARE = 1 / 16  # of an object's own length, as networks err by some percent of it
REACH_SHARE = 1 / 8  # of a whole object's length: what of it a second tile shows beyond its outline is no object
FAR_SHARE = 1 / 8  # of a tile's side: where tiles overlap by a quarter, one of them sees an object from that far or all of it
UNSURE = 0.5  # of the score of another object: one that is surer by more is neither replaced nor prolonged by this one


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """N objects: their pixels, none without any, `scores` float32 (N,) and `class_ids` int64 (N,)."""

    masks: MaskRuns
    scores: np.ndarray
    class_ids: np.ndarray

    @classmethod
    def joined(cls, parts: "Sequence[FoundObjects]") -> "FoundObjects":
        """The objects of all parts, one part after the other."""
        scores, class_ids = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "class_ids"))
        return cls(MaskRuns.joined([part.masks for part in parts]), scores, class_ids)


@dataclass(frozen=True, eq=False)
class TileGrid:
    """T tiles over the pixels of an image, in the order of reading.

    `edges` int64 (T, 4) are (top, left, bottom, right), the last two outside; `is_inner` bool (T, 4) says beyond which of them
    the image goes on; `near` float64 (4,) is how close to an edge is on it; `pairs` are the tiles that overlap.
    """

    edges: np.ndarray
    is_inner: np.ndarray
    near: np.ndarray
    pairs: list[tuple[int, int]]

    @classmethod
    def over(
        cls, starts: Sequence[np.ndarray], tile: tuple[int, ...], ratio: tuple[float, ...], shape: tuple[int, ...]
    ) -> "TileGrid":
        """Tiles that start at these rows and columns of what a network sees, each of them `ratio` pixels of the image (H, W).

        To a tile belong the pixels whose centres it sees.
        """
        rows, columns = (
            [_pixels(at, at + side, factor, size) for at in firsts]
            for firsts, side, factor, size in zip(starts, tile, ratio, shape, strict=True)
        )
        edges = [(top, left, bottom, right) for top, bottom in rows for left, right in columns]
        last = (len(rows) - 1, len(columns) - 1)
        is_inner = [(i > 0, j > 0, i < last[0], j < last[1]) for i in range(len(rows)) for j in range(len(columns))]
        pairs = [
            (i * len(columns) + j, k * len(columns) + m)
            for i, k in _meeting(rows)
            for j, m in _meeting(columns)
            if (i, j) < (k, m)
        ]
        return cls(np.array(edges), np.array(is_inner), NEAR * np.array([*ratio, *ratio]), pairs)

    def window(self, one: int, other: int) -> tuple[int, int, int, int]:
        """Where two tiles overlap, as in `edges`."""
        low, high = (
            np.maximum(self.edges[one, :2], self.edges[other, :2]),
            np.minimum(self.edges[one, 2:], self.edges[other, 2:]),
        )
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _pixels(start: float, stop: float, ratio: float, size: int) -> tuple[int, int]:
    """The first of `size` pixels whose centre lies between two places of what a network sees, and the one after the last."""
    first, end = (int(np.clip(np.ceil(place * ratio - 0.5), 0, size)) for place in (start, stop))
    return first, end


def _meeting(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The numbers of all two spans that have a pixel in common, in both orders; starts and ends of spans rise."""
    found = []
    for i, (_, stop) in enumerate(spans):
        found.append((i, i))
        for k in range(i + 1, len(spans)):
            if spans[k][0] >= stop:
                break
            found += [(i, k), (k, i)]
    return found


def stitched(grid: TileGrid, seen: Sequence[FoundObjects]) -> FoundObjects:
    """The objects of an image, the surest first, from those that each of the T tiles of a grid sees."""
    found, counts = FoundObjects.joined(seen), [len(part.scores) for part in seen]
    extents, firsts = found.masks.extents(), np.cumsum([0, *counts])
    numbers = [range(first, stop) for first, stop in pairwise(firsts)]
    reach = _grown(extents, grid.near, REACH_SHARE)
    pairs = [mask_overlaps(found.masks, reach, numbers[t], numbers[u], grid.window(t, u)) for t, u in grid.pairs]
    edge = _Edge.of(grid, np.repeat(np.arange(len(seen)), counts), extents)
    links = _Links.of(np.concatenate([np.empty((0, 5), np.int64), *pairs]), found.class_ids, edge.is_cut, extents, reach)
    order = [int(number) for number in np.argsort(-found.scores, kind="stable")]
    groups = _whole(order, links, edge, found.scores) + _unions(order, links, edge, found.scores)
    groups.sort(key=lambda group: -group.score)
    masks = [
        found.masks[group.members[0]] if len(group.members) == 1 else union_of_runs([found.masks[i] for i in group.members])
        for group in groups
    ]
    return FoundObjects(
        MaskRuns.of(masks),
        np.array([group.score for group in groups], np.float32),
        found.class_ids[[group.members[0] for group in groups]],
    )


def _grown(extents: np.ndarray, near: np.ndarray, share: float) -> np.ndarray:
    """Boxes (N, 4), larger on all sides by a share of their lengths, or by `near` (4,) where that is more, rounded down."""
    steps = np.maximum(near, share * np.tile(extents[:, 2:] - extents[:, :2], 2)).astype(np.int64)
    return extents + steps * [-1, -1, 1, 1]


@dataclass(frozen=True, eq=False)
class _Edge:
    """Whether each of N objects is cut by its tile's border, bool (N,), and how far it is from there, 0 to 1, float64 (N,)."""

    is_cut: np.ndarray
    distance: np.ndarray

    @classmethod
    def of(cls, grid: TileGrid, tile_of: np.ndarray, extents: np.ndarray) -> "_Edge":
        """That of objects with these extents int64 (N, 4), of the tiles with these numbers (N,)."""
        edges = grid.edges[tile_of]
        gaps = np.where(grid.is_inner[tile_of], abs(extents - edges), np.inf)
        sides = np.tile(edges[:, 2:] - edges[:, :2], 2)
        is_cut = (gaps <= abs(_grown(extents, grid.near, NEAR_SHARE) - extents)).any(axis=1)
        return cls(is_cut, (gaps / (FAR_SHARE * sides)).min(axis=1, initial=1.0))


@dataclass(frozen=True, eq=False)
class _Links:
    """For an object, those of other tiles that are the same; where it is cut, those that cover half of it, or reach as far."""

    same: dict[int, list[int]]
    covering: dict[int, list[int]]
    reaching: dict[int, list[int]]

    @classmethod
    def of(
        cls, pairs: np.ndarray, class_ids: np.ndarray, is_cut: np.ndarray, extents: np.ndarray, reach: np.ndarray
    ) -> "_Links":
        """The links among pairs int64 (E, 5), as of `mask_overlaps`; `extents` and `reach` (N, 4) are boxes of the objects."""
        links = cls(defaultdict(list), defaultdict(list), defaultdict(list))
        pairs = pairs[class_ids[pairs[:, 0]] == class_ids[pairs[:, 1]]]
        for one, other, in_one in ((0, 1, 3), (1, 0, 4)):
            part, whole = pairs[:, one], pairs[:, other]
            is_same = 2 * pairs[:, 2] > pairs[:, 3] + pairs[:, 4] - pairs[:, 2]
            is_covered = is_cut[part] & (pairs[:, 2] >= np.maximum(COVERED * pairs[:, in_one], 1))
            is_within = is_cut[part] & ((extents[part] - reach[whole]) * [1, 1, -1, -1] >= 0).all(axis=1)
            for lists, chosen in ((links.same, is_same), (links.covering, is_covered), (links.reaching, is_within)):
                for i, j in zip(part[chosen].tolist(), whole[chosen].tolist(), strict=True):
                    lists[i].append(j)
        return links

    def joining(self, number: int) -> list[int]:
        """Those that one object may be a part of."""
        return self.same.get(number, []) + self.covering.get(number, [])

    def replacing(self, number: int) -> list[int]:
        """Those that may stand for one object where they are whole."""
        return self.joining(number) + self.reaching.get(number, [])


class _Group(NamedTuple):
    """Objects of which the union is one, and its score."""

    members: list[int]
    score: float


def _whole(order: list[int], links: _Links, edge: _Edge, scores: np.ndarray) -> list[_Group]:
    """The whole objects, of those that are the same one; `order` is that of the scores."""
    groups, is_done = [], edge.is_cut.copy()
    for number in order:
        if is_done[number]:
            continue
        same = [number, *(other for other in links.same.get(number, []) if not is_done[other])]
        is_done[same] = True
        best = max(same, key=lambda one: scores[one] * edge.distance[one])
        groups.append(_Group([best], float(scores[number])))
    return groups


def _unions(order: list[int], links: _Links, edge: _Edge, scores: np.ndarray) -> list[_Group]:
    """The unions of cut objects of which no whole one takes the place."""

    def do_fit(one: int, other: int) -> bool:
        return bool(scores[other] >= UNSURE * scores[one])

    kept = {
        number
        for number in order
        if edge.is_cut[number]
        and not any(not edge.is_cut[other] and do_fit(number, other) for other in links.replacing(number))
    }
    parent = {number: number for number in order if number in kept}

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    for number in parent:
        for other in links.joining(number):
            if other in kept and do_fit(number, other) and do_fit(other, number):
                parent[root(other)] = root(number)
    members = defaultdict(list)
    for number in parent:  # the surest first
        members[root(number)].append(number)
    return [_Group(group, float(scores[group[0]])) for group in members.values()]
