"""Images that are the same or nearly so, by their pixels and by a perceptual hash. Axes: N images."""

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit

from segwright.inspection.finding import Finding, Fix, plural, some
from segwright.inspection.sample_scan import SampleScan
from segwright.inspection.split_leakage import Together, groups_of

HASH_DISTANCE = 8  # of 64 bits: copies that were resized, brightened or saved as JPEG differ by up to 6
LIKENESS = 0.99  # correlation of the small pictures that makes two images nearly the same
FLAT = 2.0  # grey levels of contrast in the small picture, below which a hash is made of noise
MAX_PAIRS = 200_000  # of a video or of one background: more tell nothing new


def about_likeness(looks: Sequence[SampleScan], together: Together) -> list[Finding]:
    """Duplicates and near-duplicates, inside a part and across parts."""
    same = _same_pixels(looks)
    findings = _duplicates(looks, same, together)
    known = {tuple(sorted((first, second))) for group in same for first in group for second in group}
    pairs = [pair for pair in near_pairs(looks) if pair not in known and not together.is_one_clip(*pair)]
    across = [pair for pair in pairs if together.part(pair[0]) != together.part(pair[1])]
    within = [pair for pair in pairs if together.part(pair[0]) == together.part(pair[1]) and not together.is_known(*pair)]
    if across:
        drop = tuple(sorted({together.later(pair) for pair in across}))
        findings.append(
            Finding(
                "near-duplicates-across-splits",
                "warning",
                f"{plural(len(across), 'pair')} of nearly the same image in different parts ({together.example(across[0])}).",
                "Leave the copies in training out by drop in dataset.toml, or split again.",
                {"pairs": [list(pair) for pair in across]},
                tuple(sorted({key for pair in across for key in pair})),
                Fix(drop=drop),
            )
        )
    if within:
        groups = groups_of(within)
        findings.append(
            Finding(
                "near-duplicates",
                "note",
                f"{plural(len(within), 'pair')} of nearly the same image in {plural(len(groups), 'group')} "
                f"(such as {some(within[0])}).",
                "Keep them on one side of every split, by groups in dataset.toml; there is less to learn than it seems.",
                {"pairs": [list(pair) for pair in within]},
                tuple(sorted({key for pair in within for key in pair})),
                Fix(groups=groups),
            )
        )
    return findings


def _same_pixels(looks: Sequence[SampleScan]) -> list[list[str]]:
    by_digest: dict[bytes, list[str]] = defaultdict(list)
    for look in looks:
        if look.channels:
            by_digest[look.digest].append(look.key)
    return [keys for keys in by_digest.values() if len(keys) > 1]


def _duplicates(looks: Sequence[SampleScan], same: list[list[str]], together: Together) -> list[Finding]:
    masks = {look.key: look.mask_digest for look in looks}
    findings = []
    across = [group for group in same if len({together.part(key) for key in group}) > 1]
    within = [group for group in same if len({together.part(key) for key in group}) == 1]
    for name, groups, where in (("duplicates-across-splits", across, "different parts"), ("duplicates", within, "one part")):
        if not groups:
            continue
        drop = tuple(key for group in groups for key in together.all_but_one(group))
        differ = [group for group in groups if len({masks[key] for key in group}) > 1]
        evidence = f"{plural(len(groups), 'image')} lie more than once in {where} ({together.example(groups[0])})"
        evidence += f", {len(differ)} of them with masks that differ." if differ else "."
        findings.append(
            Finding(
                name,
                "warning",
                evidence,
                "Leave all but one out by drop in dataset.toml" + (", and see which mask is right." if differ else "."),
                {"groups": groups, "with_other_masks": len(differ)},
                tuple(key for group in groups for key in group),
                Fix(drop=drop),
            )
        )
    return findings


def near_pairs(looks: Sequence[SampleScan]) -> list[tuple[str, str]]:
    """Pairs of keys whose images are nearly the same: a near hash, and small pictures that agree but for contrast."""
    usable = [look for look in looks if look.thumb.std() > FLAT * max(look.scale / 255, 1e-12)]
    if len(usable) < 2:
        return []
    hashes = np.array([picture_hash(look.thumb) for look in usable], dtype=np.uint64)
    thumbs = np.stack([_standard(look.thumb) for look in usable])
    pairs = _near(hashes, HASH_DISTANCE, MAX_PAIRS)
    likeness = (thumbs[pairs[:, 0]] * thumbs[pairs[:, 1]]).mean(axis=1) if len(pairs) else np.zeros(0)
    return [
        (min(usable[i].key, usable[j].key), max(usable[i].key, usable[j].key))
        for (i, j), value in zip(pairs.tolist(), likeness.tolist(), strict=True)
        if value > LIKENESS and usable[i].digest != usable[j].digest
    ]


def picture_hash(thumb: np.ndarray) -> int:
    """64 bits of a small grey picture (32, 32): which of its 8 x 8 lowest frequencies lie above their median.

    Source: Zauner 2010, Implementation and benchmarking of perceptual image hash functions (DCT hash).
    """
    frequencies = cv2.dct(np.ascontiguousarray(thumb, dtype=np.float32))[:8, :8].ravel()
    frequencies[0] = 0.0  # the mean brightness says nothing of what is shown
    bits = frequencies > np.median(frequencies)
    return int(np.packbits(bits).view(">u8")[0])


def _standard(thumb: np.ndarray) -> np.ndarray:
    flat = thumb.ravel() - thumb.mean()
    return flat / max(float(flat.std()), 1e-12)


@njit(cache=True, nogil=True)
def _near(hashes: np.ndarray, distance: int, at_most: int) -> np.ndarray:
    """Pairs of indices of hashes uint64 (N,) that differ in at most `distance` bits, int64 (M, 2)."""
    pairs = np.empty((at_most, 2), np.int64)
    count = 0
    for i in range(len(hashes)):
        for j in range(i + 1, len(hashes)):
            bits = hashes[i] ^ hashes[j]
            differing = 0
            while bits and differing <= distance:
                bits &= bits - np.uint64(1)  # takes the lowest bit away
                differing += 1
            if differing <= distance and count < at_most:
                pairs[count, 0], pairs[count, 1] = i, j
                count += 1
    return pairs[:count]
