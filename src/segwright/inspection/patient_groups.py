"""Samples of one person, thing or clip: by what their names have in common, and by the intensity step that a scan leaves."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from segwright.formats.image_index import split_of
from segwright.inspection.finding import Finding, Fix, listed, plural, some
from segwright.inspection.sample_scan import SampleScan
from segwright.inspection.split_leakage import Together, groups_of

LAST_NUMBER = re.compile(r"^(.*?)[_\-. ]*(\d+)\D*$")
YEAR = re.compile(r"(19|20)\d\d")
LEVELS = 3  # numbers that are taken off the end of a name: field, row and column of a tile
CLIP_FRAMES = 10  # a group of fewer is no video
CLIP_LIKENESS = 0.5  # correlation of neighbouring frames; images of different scenes have 0.2
SAME_STEP = 1e-6  # relative: the step of a scan is known to seven digits
MAX_OF_ONE = 8  # scans with one step; more share it because one program wrote them all
MIN_PAIRS, PAIR_SHARE = 10, 0.9  # numbered pairs that agree, until those that cannot be checked are believed to be pairs too


def name_groups(looks: Sequence[SampleScan]) -> tuple[list[list[SampleScan]], list[list[SampleScan]]]:
    """Groups of samples whose names share a number before the last one: clips of like frames, and subjects."""
    for level in range(1, LEVELS + 1):
        by_name: dict[str, list[tuple[int, SampleScan]]] = defaultdict(list)
        for look in looks:
            name, number = _beginning(split_of(look.key)[1], level)
            if any(character.isdigit() for character in name) and not YEAR.fullmatch(name):
                by_name[name].append((number, look))
        groups = [
            [look for _, look in sorted(group, key=lambda entry: entry[0])] for group in by_name.values() if len(group) > 1
        ]
        if len(by_name) > 1 and 2 * sum(map(len, groups)) >= len(looks):
            clips = [group for group in groups if _is_clip(group)]
            return clips, [group for group in groups if group not in clips]
    return [], []


def about_subjects(looks: Sequence[SampleScan], together: Together) -> list[Finding]:
    """Clips and subjects that a split tears apart, and subjects that any split should keep together."""
    clips, named = name_groups(looks)
    findings = []
    named_clips = together.unknown(tuple(look.key for look in group) for group in clips)
    torn_clips = [group for group in named_clips if together.is_torn(group)]
    if torn_clips:
        findings.append(_torn_clips(torn_clips, together))
    by_step = step_groups(looks)
    pairs = [(group[0], key) for group in [*([look.key for look in group] for group in named), *by_step] for key in group[1:]]
    groups = together.unknown(groups_of(pairs))
    for name, wanted, what in (
        ("same-subject-across-splits", [group for group in groups if together.is_torn(group)], "lie in different parts"),
        ("same-subject", [group for group in groups if not together.is_torn(group)], "lie inside one part"),
    ):
        if not wanted:
            continue
        how = []
        if named:
            how.append("their names begin alike")
        if by_step:
            how.append("their values are multiples of one fraction, equal to seven digits, as two cuts of one scan have")
            how[-1] += ", and samples numbered 2k - 1 and 2k are such pairs" if _pairs_by_number(looks) else ""
        findings.append(
            Finding(
                name,
                "warning" if name.endswith("splits") else "note",
                f"{plural(len(wanted), 'group')} of samples of one subject {what} (such as {together.example(wanted[0])}): "
                f"{' or '.join(how)}.",
                "Keep each on one side of every split, by groups in dataset.toml"
                + ("; scores on such a part are too good." if name.endswith("splits") else "."),
                {"groups": [list(group) for group in wanted], **_pair_numbers(looks)},
                tuple(key for group in wanted for key in group),
                Fix(groups=tuple(wanted)),
            )
        )
    return findings


def _torn_clips(torn: list[tuple[str, ...]], together: Together) -> Finding:
    counts = Counter(together.part(key) for group in torn for key in group)
    parts = listed([f"{number} in {part}" for part, number in counts.items()])
    return Finding(
        "same-clip-across-splits",
        "warning",
        f"Frames of {plural(len(torn), 'clip')} lie in different parts ({parts}; such as {some([torn[0][0], torn[0][-1]])}): "
        "their names begin alike, and neighbours are alike.",
        "Scores on such frames are too good. Split by clips, by groups in dataset.toml, or leave a gap of several seconds.",
        {"groups": [list(group) for group in torn], "frames": dict(counts)},
        tuple(key for group in torn for key in group),
        Fix(groups=tuple(torn)),
    )


def _beginning(name: str, level: int) -> tuple[str, int]:
    """What is left of a name when so many numbers are taken off its end, and the first of those left off; ("", 0) without."""
    number = 0
    for _ in range(level):
        match = LAST_NUMBER.match(name)
        if match is None:
            return "", 0
        name, number = match[1], int(match[2])
    return name, number


def _is_clip(group: Sequence[SampleScan]) -> bool:
    if len(group) < CLIP_FRAMES:
        return False
    thumbs = np.stack([look.thumb.ravel() for look in group])
    thumbs = (thumbs - thumbs.mean(axis=1, keepdims=True)) / np.maximum(thumbs.std(axis=1, keepdims=True), 1e-6)
    return float(np.median((thumbs[1:] * thumbs[:-1]).mean(axis=1))) > CLIP_LIKENESS


def step_groups(looks: Sequence[SampleScan]) -> list[list[str]]:
    """Keys of scans with one intensity step, and of numbered pairs, where pairs that can be checked have one."""
    stepped = sorted((look.step, look.key) for look in looks if look.step is not None)
    groups: list[list[str]] = []
    last = 0.0
    for step, key in stepped:
        if groups and step - last <= SAME_STEP * step:
            groups[-1].append(key)
        else:
            groups.append([key])
        last = step
    shared = [sorted(group) for group in groups if 1 < len(group) <= MAX_OF_ONE]
    if len(groups) < 3 or not shared:  # 3: with fewer, equal steps come from one program, not from one scan
        return []
    return shared + [list(pair) for pair in _pairs_by_number(looks) or []]


def _pairs_by_number(looks: Sequence[SampleScan]) -> list[tuple[str, str]] | None:
    """Pairs 2k - 1, 2k (or 2k, 2k + 1) of numbered samples, where those with steps prove the rule; None where they do not."""
    numbered = {}
    for look in looks:
        match = LAST_NUMBER.match(split_of(look.key)[1])
        if match:
            numbered[match[1], int(match[2])] = look
    for parity in (1, 0):
        pairs = [
            (look, numbered[name, number + 1])
            for (name, number), look in numbered.items()
            if number % 2 == parity and (name, number + 1) in numbered
        ]
        checked = [pair for pair in pairs if pair[0].step and pair[1].step]
        equal = [pair for pair in checked if abs((pair[0].step or 0) - (pair[1].step or 0)) <= SAME_STEP * (pair[0].step or 0)]
        if len(equal) >= MIN_PAIRS and len(equal) >= PAIR_SHARE * len(checked):
            return [
                (first.key, second.key)
                for first, second in pairs
                if (first, second) in equal or not (first.step and second.step)
            ]
    return None


def _pair_numbers(looks: Sequence[SampleScan]) -> dict[str, int]:
    pairs = _pairs_by_number(looks)
    return {} if pairs is None else {"numbered_pairs": len(pairs)}
