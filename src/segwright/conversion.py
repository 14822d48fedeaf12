"""From one data format to another, with a measured account of what was lost. Axes: P planes, N segments, *S spatial axes."""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from zlib import crc32

import numpy as np

from segwright.codecs.volume_file import suffix_of
from segwright.core import VOID, Dataset, Grid, Sample, Segmentation
from segwright.core.atomic_files import remove, replace_file
from segwright.core.errors import FormatError, OutputError, UnknownNameError
from segwright.core.lookup import did_you_mean
from segwright.core.strict_json import json_text
from segwright.formats import dataset_file, open_dataset, readers
from segwright.formats.drawn_shapes import ABOUT_IMAGE, lost
from segwright.formats.resume_journal import UNFINISHED

OnSample = Callable[[str, int, int], None]

UNCHECKED = ".segwright-unchecked"  # a file in a data set that is written, until all of it was read back
SAME_PLACE = 1e-3  # of a pixel: float32, which NIfTI stores, is 100 times finer; people and networks are coarser
LEFT_OUT = "annotations became no segment"
ABOUT_IMAGES = "tags, captions and the like are not kept"
TALLIED = 1 << 22  # pairs of segments counted in a table of 32 MB; more are sorted instead


@dataclass(frozen=True)
class Change:
    """What became of one sample: `iou` is 1 where each segment came back as it was, and `reasons` says what differs.

    Segments are matched one to one, within their class, objects with objects; void counts as a segment, and what is not an
    object (stuff, crowds) is one segment per class. `iou` is the sum of the IoU of the pairs over the larger number of
    segments. `notes` tells of differences that are not in the pixels: object numbers, scores, pixel sizes, the image.
    `left_out` counts the annotations of the source that no segment came of, by the reason: each of an object is a segment lost.
    """

    key: str
    iou: float
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ConversionReport:
    """What became of a data set: the number of samples, those that came back as they were, and the mean IoU of all.

    `reasons` counts the samples by what differs, `loses` is what the format cannot hold, and `left_out` counts the annotations
    of the source that no segment came of.
    """

    source: str
    target: str
    format: str
    count: int
    lossless: int
    iou: float
    reasons: dict[str, int]
    notes: dict[str, int]
    loses: str
    left_out: dict[str, int]


def convert(
    source: Path | str,
    target: Path | str,
    to: str,
    *,
    format: str | None = None,
    force: bool = False,
    watch: OnSample | None = None,
    on_change: Callable[[Change], None] | None = None,
) -> ConversionReport:
    """Write the data set at `source` to `target` in the format `to`, read it back, and report what differs.

    One sample is in memory at a time. A conversion that was stopped goes on where it was. What a dataset.toml at the source
    drops is left out, and its groups are written for the new data set too. `format` names that of the source
    where it is not to be recognised. With `force` a data set at `target` is replaced, once the new one is complete.
    `watch` is called with "write" or "check", the number of samples done and of all, `on_change` with what became of each.

    Raises:
        UsageError: the source cannot be read, or the target not written; an earlier target is as it was.
    """
    module = writer(to)
    data = open_dataset(source, format)
    target = Path(target)
    _check_apart(Path(source), target)
    tell = watch or (lambda step, done, total: None)
    place = {key: number for number, key in enumerate(data.keys)}

    def load(key: str) -> Sample:
        tell("write", place[key], len(data))
        return data.load(key)

    unchecked, what = target / UNCHECKED, _what(data, to)
    is_written = unchecked.is_file() and unchecked.read_bytes() == what
    with _replacing(target, force, goes_on=is_written or (target / UNFINISHED).exists()):
        if not is_written:
            module.write(target, replace(data, load=load))
            if target.is_dir():  # no file of one volume
                _write_groups(data, source, target)
                replace_file(unchecked, what)
        report = _check(data, module.read(target), to, module.LOSES, tell, on_change or (lambda change: None))
        if target.is_dir():
            unchecked.unlink(missing_ok=True)
        return report


def writers() -> list[str]:
    """Names of the formats that can be written."""
    return [name for name, module in readers().items() if hasattr(module, "write")]


def writer(name: str):  # noqa: ANN201  (a module)
    """The module that writes a format.

    Raises:
        UnknownNameError: there is none of that name; the message offers the nearest.
    """
    known = writers()
    if name not in known:
        raise UnknownNameError(f"no format '{name}' can be written{did_you_mean(name, known)}; known are {', '.join(known)}")
    return readers()[name]


def compare_samples(before: Sample, after: Sample) -> Change:
    """What differs between a sample and the sample that came back."""
    notes = []
    if not _same_image(before.image, after.image):
        notes.append("the image differs" if len(after.image) else "the image is not kept")
    if not _same_grid(before.grid, after.grid):
        notes.append("pixel size or position is not kept")
    if before.truth is None or after.truth is None:
        is_same = before.truth is after.truth
        reasons = [] if is_same else ["a sample without truth came back with one, or the reverse"]
        return Change(before.key, float(is_same), tuple(reasons), tuple(notes))
    if before.truth.shape != after.truth.shape:
        raise FormatError(f"sample {before.key!r} is {before.truth.shape}, and came back as {after.truth.shape}")
    iou, reasons, more = _compare(before.truth, after.truth, lost(before.left_out))
    notes += [ABOUT_IMAGES] if ABOUT_IMAGE in before.left_out else []
    return Change(before.key, iou, tuple(reasons), tuple(notes + more), before.left_out)


def _check(
    data: Dataset,
    back: Dataset,
    to: str,
    loses: str,
    tell: OnSample,
    on_change: Callable[[Change], None],
) -> ConversionReport:
    is_file = len(data) == len(back) == 1 and Path(back.source).is_file()
    keys_back = back.keys if is_file else data.keys  # a file is called as its path says
    missing = sorted(set(keys_back) - set(back.keys))
    if missing or len(back) != len(data):
        raise FormatError(
            f"{back.source} reads back with {len(back)} of {len(data)} samples (missing: {', '.join(missing[:3]) or 'none'}); "
            f"this is a mistake of the format {to}: please report it"
        )
    lossless, total = 0, 0.0
    reasons: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    left_out = Counter(data.left_out)
    for done, (key, key_back) in enumerate(zip(data.keys, keys_back, strict=True)):
        tell("check", done, len(data))
        change = compare_samples(data.load(key), back.load(key_back))
        on_change(change)
        total += change.iou
        lossless += change.iou == 1 and not change.reasons
        reasons.update(change.reasons)
        notes.update(change.notes)
        left_out.update(change.left_out)
    is_of_format = bool({*reasons} - {LEFT_OUT})
    return ConversionReport(
        data.source,
        back.source,
        to,
        len(data),
        lossless,
        total / max(len(data), 1),
        dict(reasons),
        dict(notes),
        loses if is_of_format else "",
        dict(left_out),
    )


def _compare(before: Segmentation, after: Segmentation, num_lost: int) -> tuple[float, list[str], list[str]]:
    """IoU, reasons and notes, where so many annotations of objects became no segment; see Change."""
    number_of = {name: k for k, name in enumerate(dict.fromkeys((*before.classes.names, *after.classes.names)))}
    first, second = _groups(before, number_of), _groups(after, number_of)
    pairs = _matches(first, second)
    count = max(len(first.areas), len(second.areas)) + num_lost
    total = sum(iou for *_, iou in pairs)
    less, new = len(first.areas) - len(pairs), len(second.areas) - len(pairs)
    changed = sum(iou < 1 for *_, iou in pairs)
    gone = {*first.kinds} - {first.kinds[i] for i, *_ in pairs}
    came = {*second.kinds} - {second.kinds[j] for _, j, _ in pairs}
    reasons = [
        *(["objects became the region of their class"] if any((k, False) in came for k, is_one in gone if is_one) else []),
        *(["a region became an object"] if any((k, True) in came for k, is_one in gone if not is_one) else []),
        *(["segments are gone"] if less else []),
        *(["segments are new"] if new else []),
        *(["segments have other pixels"] if changed else []),
        *(["void is not the same"] if not np.array_equal(before.planes[0] == VOID, after.planes[0] == VOID) else []),
        *(["pixels of several objects keep one of them"] if _depth(before) > _depth(after) else []),
        *([LEFT_OUT] if num_lost else []),
    ]
    notes = []
    if {*before.classes.names} != {*after.classes.names}:
        notes.append("the list of classes differs")
    if any(first.numbers[i] != second.numbers[j] for i, j, _ in pairs):
        notes.append("objects have other numbers")
    if any(abs(first.scores[i] - second.scores[j]) > 1e-4 for i, j, _ in pairs):  # 1e-4: some formats write four digits
        notes.append("scores are not kept")
    return (total / count if count else 1.0), reasons, notes


@dataclass(frozen=True, eq=False)
class Groups:
    """Segments by what must stay together: `planes` (P, *S) with 0 for none and i + 1 for group i, and per group its kind
    (class number and whether it is an object; void is -1), its area, its object number and its score."""

    planes: np.ndarray
    kinds: list[tuple[int, bool]]
    areas: np.ndarray
    numbers: list[int]
    scores: list[float]


def _groups(segmentation: Segmentation, number_of: dict[str, int]) -> Groups:
    """Each object is a group of its own, what is no object one group per class, void one more."""
    group_of = np.zeros(len(segmentation) + 2, np.int64)  # indices: void, nothing, segments
    groups: dict[tuple[int, int], int] = {}  # class number, and the segment where it is an object, 0 where not -> group
    numbers: list[int] = []
    scores: list[float] = []
    for value in np.flatnonzero(np.bincount((segmentation.planes + 1).ravel())).tolist():
        index = value - 2
        if index == -1:
            continue
        is_void, number = index < 0, 0 if index < 0 else int(segmentation.instance_ids[index])
        class_number = VOID if is_void else number_of[segmentation.classes.names[segmentation.class_ids[index]]]
        group_of[value] = groups.setdefault((class_number, value if number else 0), len(groups) + 1)
        if len(groups) > len(numbers):
            numbers.append(number)
            scores.append(1.0 if is_void else float(segmentation.scores[index]))
    planes = group_of[segmentation.planes + 1]
    where = np.array([np.bincount(plane.ravel(), minlength=len(groups) + 1) > 0 for plane in planes])  # (P, N + 1)
    is_shared = (where.sum(axis=0) > 1) & (np.arange(len(groups) + 1) > 0)
    of_shared = [plane for plane, there in zip(planes, where, strict=True) if there[is_shared].any()]
    for number, upper in enumerate(of_shared):
        for lower in of_shared[:number]:  # a region that covers itself counts once
            upper[upper == lower] = 0
    areas = np.bincount(planes.ravel(), minlength=len(groups) + 1)[1:]
    return Groups(planes, [(class_number, segment > 0) for class_number, segment in groups], areas, numbers, scores)


def _matches(first: Groups, second: Groups) -> list[tuple[int, int, float]]:
    """Pairs of groups of one kind and their IoU, each group in one pair at most, the best pairs first."""
    pairs = _equal(first, second)
    is_left = [np.ones(len(groups.kinds) + 1, bool) for groups in (first, second)]  # by number, 0 for none
    for side, done in zip(is_left, ([i for i, *_ in pairs], [j for _, j, _ in pairs]), strict=True):
        side[[0, *(index + 1 for index in done)]] = False
    mine, others = (
        [np.where(left[plane], plane, 0) for plane in groups.planes if left[plane].any()]
        for left, groups in zip(is_left, (first, second), strict=True)
    )
    width = len(second.kinds) + 1
    candidates: dict[tuple[int, int], int] = {}
    for plane, other in itertools.product(mine, others):
        for code, count in _joint(plane.astype(np.int64) * width + other, (len(first.kinds) + 1) * width):
            pair = code // width - 1, code % width - 1
            if min(pair) >= 0 and first.kinds[pair[0]] == second.kinds[pair[1]]:
                candidates[pair] = candidates.get(pair, 0) + count
    ious = [(count / (first.areas[i] + second.areas[j] - count), i, j) for (i, j), count in candidates.items()]
    used_first, used_second = set(), set()
    for iou, i, j in sorted(ious, key=lambda entry: (-entry[0], abs(entry[1] - entry[2]), entry[1])):
        if i not in used_first and j not in used_second:
            used_first.add(i)
            used_second.add(j)
            pairs.append((i, j, float(iou)))
    return pairs


def _equal(first: Groups, second: Groups) -> list[tuple[int, int, float]]:
    """Pairs of groups of one kind and the same pixels: of most data sets all, which is faster than to try all pairs."""
    weights = np.random.default_rng(0).random(first.planes[0].size)  # sums of these tell which groups may be equal
    there: dict[tuple[tuple[int, bool], int, float], list[int]] = {}
    for index, mark in enumerate(marks(second, weights)):
        there.setdefault(mark, []).append(index)
    other_of = np.full(len(first.kinds) + 1, -1)  # by number, as in the planes
    for index, mark in enumerate(marks(first, weights)):
        alike = there.get(mark)
        if alike:
            other = next((other for other in alike if second.numbers[other] == first.numbers[index]), alike[0])
            alike.remove(other)
            other_of[index + 1] = other + 1
    other_of[_differing(first, second, other_of)] = -1
    return [(int(number) - 1, int(other_of[number]) - 1, 1.0) for number in np.flatnonzero(other_of > 0)]


def _differing(first: Groups, second: Groups, other_of: np.ndarray) -> np.ndarray:
    """The numbers of those groups, of all that have another of the same area, that have a pixel which the other lacks."""
    differing = np.zeros(len(other_of), bool)
    for number, plane in enumerate(first.planes):
        wanted = other_of[plane]
        is_missing = wanted > 0
        for other in (*second.planes[number : number + 1], *second.planes[:number], *second.planes[number + 1 :]):
            if not is_missing.any():  # mostly after the plane of the same number
                break
            is_missing &= other != wanted
        differing[plane[is_missing]] = True
    return differing


def marks(groups: Groups, weights: np.ndarray) -> list[tuple[tuple[int, bool], int, float]]:
    """The kind, the area and the sum of the weights of the pixels of each group."""
    sums = np.zeros(len(groups.kinds) + 1)
    for plane in groups.planes:
        sums += np.bincount(plane.ravel(), weights, minlength=len(sums))
    return list(zip(groups.kinds, groups.areas.tolist(), sums[1:].tolist(), strict=True))


def _joint(codes: np.ndarray, limit: int) -> list[tuple[int, int]]:
    """The codes that occur in an array of codes below a limit, and how often."""
    if limit <= TALLIED:
        counts = np.bincount(codes.ravel(), minlength=limit)
        present = np.flatnonzero(counts)
        return list(zip(present.tolist(), counts[present].tolist(), strict=True))
    values, counts = np.unique(codes, return_counts=True)
    return list(zip(values.tolist(), counts.tolist(), strict=True))


def _depth(segmentation: Segmentation) -> int:
    return int((segmentation.planes > 0).sum(axis=0).max(initial=0))


def _same_image(first: np.ndarray, second: np.ndarray) -> bool:
    equal_nan = np.issubdtype(first.dtype, np.inexact)
    return first.dtype == second.dtype and np.array_equal(first, second, equal_nan=equal_nan)


def _same_grid(first: Grid, second: Grid) -> bool:
    for mine, other in ((first.affine, second.affine), (first.spacing_mm, second.spacing_mm)):
        if mine is None:
            continue
        smallest = np.abs(np.asarray(first.spacing_mm or 1.0)).min()
        if other is None or not np.allclose(mine, other, rtol=0, atol=SAME_PLACE * smallest):
            return False
    return True


def _write_groups(data: Dataset, source: Path | str, target: Path) -> None:
    """Keep together what a dataset.toml says belongs together; what else it says is in the new files already."""
    known, keys = dataset_file.read(source), {*data.keys}
    groups = [here for group in (known.groups if known else ()) if len(here := [key for key in group if key in keys]) > 1]
    if groups:
        dataset_file.write_groups(target, groups)


def _what(data: Dataset, to: str) -> bytes:
    """What a conversion is to write, to know it again after it was stopped."""
    source = os.path.abspath(data.source) if Path(data.source).exists() else data.source  # noqa: PTH100
    return json_text([to, source, crc32(repr((data.keys, data.classes.names)).encode())]).encode()


def _check_apart(source: Path, target: Path) -> None:
    here, there = source.resolve(), target.resolve()
    if source.exists() and (here == there or here in there.parents or there in here.parents):
        raise OutputError(f"{target} and the source {source} lie in each other; choose a folder apart from the source")


@contextmanager
def _replacing(target: Path, force: bool, *, goes_on: bool):  # noqa: ANN202
    """With `force`, put an earlier data set aside, and remove it when the context ends well, or bring it back.

    A call that goes on with a conversion that was killed removes what that one had put aside.
    """
    if goes_on:
        yield
        remove(_aside(target))
        return
    if not force or not target.exists() or (target.is_dir() and not any(target.iterdir())):
        yield
        return
    is_known = bool(suffix_of(target)) if target.is_file() else any(module.matches(target) for module in readers().values())
    if not is_known:  # the only file that is a data set to write is a volume
        raise OutputError(f"{target} is no data set, so that --force does not remove it; give another name")
    if Path.cwd().is_relative_to(target.resolve()):
        raise OutputError(f"{target} is the folder that you are in, so that --force does not remove it; call from another one")
    aside = _aside(target)
    remove(aside)
    os.replace(target, aside)  # noqa: PTH105
    try:
        yield
    except BaseException:
        remove(target)
        os.replace(aside, target)  # noqa: PTH105
        raise
    remove(aside)


def _aside(target: Path) -> Path:
    place = target.absolute()
    number = crc32(os.fsencode(place.name))  # long names may begin alike
    return place.with_name(f".{place.name[:50]}.{number:08x}.replaced")  # 50: names longer than 255 bytes are refused
