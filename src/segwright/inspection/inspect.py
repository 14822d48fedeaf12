"""All diagnoses of a data set, in one pass over its samples."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core import Classes, Dataset
from segwright.core.errors import SegwrightError
from segwright.data.fingerprint import SAMPLED_PIXELS, Fingerprint, gathered
from segwright.inspection.adjacent_tiles import about_tiles
from segwright.inspection.checks import about_images, about_masks
from segwright.inspection.class_counts import about_classes
from segwright.inspection.color_models import about_color_models
from segwright.inspection.duplicates import about_likeness
from segwright.inspection.finding import Finding, Fix
from segwright.inspection.image_files import (
    about_absent,
    about_alpha,
    about_failures,
    about_sizes,
    about_stacks,
    about_values,
)
from segwright.inspection.label_values import about_numbers
from segwright.inspection.left_out import about_left_out
from segwright.inspection.lenient_loader import LenientData, open_leniently
from segwright.inspection.mask_tags import about_tags
from segwright.inspection.missing_values import about_missing
from segwright.inspection.patient_groups import about_subjects, name_groups
from segwright.inspection.sample_scan import Failure, Item, SampleScan, fits, glance_at, look_at
from segwright.inspection.split_leakage import Together

AT_MOST = 2000  # samples that are read: some 20 s of photographs on two cores; more would hardly change a share
COMPARED = 20_000  # of the others, of which a small picture is compared: some 20 s again
MEASURED = 200  # of them, of which objects and intensities are measured, which takes as long as reading
ORDER = ("error", "warning", "note")
ABOUT_VALUES = ("mixed-bit-depths", "intensity-scales", "undeclared-nodata")  # with one of these, brightness is bound to differ
ABOUT_CLASSES = (  # with one of these, rare classes and much void follow from it, or nobody knows yet what the numbers mean
    *("zero-is-void", "ignore-inside", "off-by-one", "number-without-class", "scattered-numbers", "smoothed-masks"),
    *("tiny-foreground", "dominant-class"),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class InspectionReport:
    """What the doctor found. Findings begin with the worst.

    `count` samples exist in `parts`, but those `dropped` by dataset.toml; `looked_at` were read, and `compared`, those
    included, held against each other. `refusal` says why the data cannot be opened, or a sample not be read, "" where all can.
    `part_of` tells the part of each key, "" where the data have no parts. `sizes` counts the images of each size, `areas` the
    objects of 1 to 3 pixels, 4 to 15, 16 to 63, ... `dataset` holds the samples that can be read, None where there is none;
    `measured` is its fingerprint.
    """

    source: str
    format: str | None = None
    root: Path | None
    refusal: str = ""
    part_of: dict[str, str] = field(default_factory=dict)
    count: int
    looked_at: int
    compared: int
    dropped: int
    parts: dict[str, int]
    sizes: dict[tuple[int, ...], int]
    areas: tuple[int, ...]
    findings: tuple[Finding, ...]
    dataset: Dataset | None
    measured: Fingerprint | None

    def to_json(self) -> dict[str, Any]:
        """All of it but the samples, as JSON holds it."""
        return {
            "source": self.source,
            "count": self.count,
            "looked_at": self.looked_at,
            "compared": self.compared,
            "dropped": self.dropped,
            "parts": self.parts,
            "sizes": [[*size, count] for size, count in self.sizes.items()],
            "areas": list(self.areas),
            "findings": [_finding_json(finding) for finding in self.findings],
            "fingerprint": asdict(self.measured) if self.measured is not None else None,
        }


def inspect(path: Path | str, format: str | None = None, *, at_most: int = AT_MOST, seed: int = 0) -> InspectionReport:
    """Look at a data set and say what is wrong with it. Of more than `at_most` samples a random choice is read.

    Raises:
        UsageError: nothing there looks like a data set, or its dataset.toml is wrong.
    """
    opened = open_leniently(path, format)
    generator = np.random.default_rng(seed)
    items = _some(opened.items, at_most, generator)
    detailed = _some(items, MEASURED, generator)
    num_classes = len(opened.classes) if opened.classes is not None else 0
    results = look_at(
        items, num_classes, frozenset(item.key for item in detailed), max(1, SAMPLED_PIXELS // max(len(detailed), 1))
    )
    looks = [result for result in results if isinstance(result, SampleScan)]
    failures = [result for result in results if isinstance(result, Failure)]
    taken = {item.key for item in items}
    glances = glance_at(_some([item for item in opened.items if item.key not in taken], COMPARED, generator))
    dataset, measured = _measure(opened, looks)
    findings = [*opened.findings, *_diagnose(opened, looks, glances, failures)]
    if measured is not None:
        names = {finding.name for finding in findings}
        findings += [] if names & {*ABOUT_CLASSES} else about_masks(measured)
        findings += [note for note in about_images(measured) if note.name != "brightness-shift" or not names & {*ABOUT_VALUES}]
    if len(findings) > 1 and any(finding.level == "error" for finding in findings if finding.name != "cannot-open"):
        findings = [finding for finding in findings if finding.name != "cannot-open"]  # its cause is found
    return InspectionReport(
        source=opened.source,
        format=format,
        root=opened.root,
        refusal=_refusal(opened, results),
        part_of={item.key: item.part if opened.is_split else "" for item in opened.items},
        count=len(opened.items),
        looked_at=len(items),
        compared=len(looks) + len(glances),
        dropped=len(opened.known.drop) if opened.known is not None else 0,
        parts=dict(Counter(item.part for item in opened.items)) if opened.is_split else {},
        sizes=dict(Counter(look.shape for look in looks)),
        areas=_areas(looks),
        findings=tuple(sorted(findings, key=lambda finding: ORDER.index(finding.level))),
        dataset=dataset,
        measured=measured,
    )


def _refusal(opened: LenientData, results: list[SampleScan | Failure]) -> str:
    said = [result.message if isinstance(result, Failure) else result.problem for result in results]
    return opened.refusal or next(filter(None, said), "")


def _areas(looks: list[SampleScan]) -> tuple[int, ...]:
    """Objects by the power of four that their area in pixels reaches."""
    areas = np.concatenate([np.zeros(0, np.int64), *(look.detail.objects[:, 1] for look in looks if look.detail is not None)])
    return tuple(np.bincount((np.log2(areas[areas > 0]) / 2 + 1e-9).astype(int)).tolist())


def _diagnose(
    opened: LenientData, looks: list[SampleScan], glances: list[SampleScan], failures: list[Failure]
) -> list[Finding]:
    """All findings that samples give."""
    images = {item.key: item.image for item in opened.items}
    fitting = [look for look in looks if fits(look, images.get(look.key))]
    numbers = about_numbers(looks, opened.named) if opened.has_mask_files else []
    explained = bool(numbers) and numbers[0].level == "error"
    failures = [
        *failures,
        *(Failure(look.key, look.part, look.problem) for look in fitting if look.problem and not explained),
    ]
    pictured = [look for look in looks if look.channels]
    compared = [*pictured, *glances]
    clips, _ = name_groups(compared)
    together = Together(
        {look.key: look.part for look in compared},
        opened.known.groups if opened.known else (),
        [[look.key for look in clip] for clip in clips],
    )
    findings = [*about_failures(failures), *about_absent(looks), *about_sizes(looks, images), *about_stacks(fitting, images)]
    findings += [*about_left_out(looks, opened.dataset.left_out if opened.dataset else {}), *numbers]
    if opened.classes is not None and not _is_renumbered(numbers):
        kinds = {"is_split": opened.is_split, "has_mask_files": opened.has_mask_files}
        findings += about_classes(looks, opened.classes, opened.named, **kinds)
    checks: list[Callable[[list[SampleScan], Together], list[Finding]]] = [about_likeness, about_tiles, about_subjects]
    findings += [*about_values(pictured), *about_alpha(pictured), *about_missing(pictured)]
    findings += about_color_models(opened.root, images)
    findings += about_tags(opened.root, opened.named, looks) if opened.root is not None else []
    for check in checks:
        findings += check(compared, together)
    return [finding if opened.is_split else _of_hold_out(finding) for finding in findings]


def _is_renumbered(numbers: list[Finding]) -> bool:
    """Whether the numbers mean something else than they seem to, so that counts of classes say nothing yet."""
    return any(finding.level != "note" for finding in numbers)


def _of_hold_out(finding: Finding) -> Finding:
    """A finding about a cut that nobody made, and that dataset.toml can move."""
    if not finding.name.endswith("-across-splits"):
        return finding
    return replace(finding, evidence=f"{finding.evidence} Without train/ and val/, the last sixth is held out.")


def _measure(opened: LenientData, looks: list[SampleScan]) -> tuple[Dataset | None, Fingerprint | None]:
    """The samples that can be read as a data set, and its fingerprint."""
    readable = [look for look in looks if not look.problem]
    if not readable:
        return None, None
    load = {item.key: item.load for item in opened.items}
    keys = tuple(look.key for look in readable)
    dataset = Dataset(opened.source, opened.classes or Classes.of(["nothing"]), keys, lambda key: load[key]())
    measured = [(look.detail, look.key) for look in readable if look.detail is not None]
    if not measured or opened.classes is None:
        return dataset, None
    whole = replace(dataset, keys=tuple(item.key for item in opened.items))
    try:
        return dataset, gathered(whole, [detail for detail, _ in measured], [key for _, key in measured])
    except SegwrightError:  # a mixture of 2D and 3D, or images without a number
        return dataset, None


def _some(items: tuple[Item, ...] | list[Item], at_most: int, generator: np.random.Generator) -> list[Item]:
    if len(items) <= at_most:
        return [*items]
    return [items[int(index)] for index in np.sort(generator.choice(len(items), at_most, replace=False))]


def _finding_json(finding: Finding) -> dict[str, Any]:
    fix = finding.fix or Fix()
    return {
        "name": finding.name,
        "level": finding.level,
        "evidence": finding.evidence,
        "remedy": finding.remedy,
        "numbers": finding.numbers,
        "keys": list(finding.keys),
        "fix": {
            "drop": list(fix.drop),
            "masks": fix.masks,
            "groups": [list(group) for group in fix.groups],
            "nodata": list(fix.nodata),
            "axes": fix.axes,
        },
    }
