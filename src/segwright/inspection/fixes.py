"""The remedies of findings, written into the dataset.toml beside the data; what a person wrote there stays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import tomlkit
from tomlkit.items import Array, Item

from segwright.core.atomic_files import replace_file
from segwright.core.errors import SegwrightError, UsageError
from segwright.formats import dataset_file
from segwright.inspection.finding import Finding, listed, plural
from segwright.inspection.inspect import InspectionReport, inspect
from segwright.inspection.split_leakage import groups_of

FEWEST = 2  # samples: one to learn from and one to measure on
HEADER = "What is known of the data in this folder; every command of Segwright reads it. Written by segwright inspect."


class Written(NamedTuple):
    """What `write_config` did: the file, one sentence on each change, and one on each remedy that was not written."""

    path: Path
    changes: list[str]
    refused: list[str]


def write_config(report: InspectionReport) -> Written:
    """Write the remedies that a dataset.toml can hold, if the data then open, all samples can be read, and the findings go.

    The data are looked at again after writing, and what did not help is taken back. Keys that are there stay, with their
    comments; only [masks] is replaced, key by key, where a finding says so.

    Raises:
        UsageError: the data lie in no folder.
        FormatError: the file that is there is not as dataset_file.py says.
        OutputError: the folder is not writable.
    """
    if report.root is None:
        raise UsageError(
            f"{report.source} lies in no folder, so that there is no place for a dataset.toml; write it to a folder"
        )
    path = report.root / dataset_file.NAME
    dataset_file.read(path.parent)  # refuses what is wrong in it
    before = text = path.read_bytes() if path.is_file() else None
    changes: list[str] = []
    refused: dict[str, str] = {}
    while True:
        findings = [finding for finding in _affordable(report, refused) if finding.name not in refused]
        new, more = remedied(text, findings)
        if not more:
            break
        replace_file(path, new)
        again = _look_again(report)
        vain = _in_vain(again, findings)
        if vain or isinstance(again, SegwrightError):
            _restore(path, text)
            refused |= vain
            continue
        report, text, changes = again, new, [*changes, *more]
    if changes and report.refusal:
        _restore(path, before)
        refused[""] = f"{', '.join(changes)}: nothing of this is written, as the data would still not open: {report.refusal}"
        changes = []
    return Written(path, changes, [*refused.values()])


def remedied(before: bytes | None, findings: Sequence[Finding]) -> tuple[bytes, list[str]]:
    """A dataset.toml with the remedies of findings added to what was there, and one sentence on each change."""
    document = tomlkit.parse(before.decode("utf-8-sig")) if before is not None else _new()
    steps = (_axes, _drop, _group, _nodata, _masks)
    changes = [change for step in steps for change in step(document, findings)]
    return tomlkit.dumps(document).encode(), changes


def _affordable(report: InspectionReport, refused: dict[str, str]) -> list[Finding]:
    """The findings whose remedies leave enough samples; into `refused` goes why others do not, by their names."""
    kept: list[Finding] = []
    left = {*report.part_of}
    for finding in report.findings:
        if finding.fix is None or finding.name in refused:
            continue
        rest = left - {*finding.fix.drop}
        lost = {report.part_of[key] for key in left} - {report.part_of[key] for key in rest}
        if finding.fix.drop and (len(rest) < FEWEST or lost):
            where = f", none of {listed(sorted(lost))}" if lost and len(rest) >= FEWEST else ""
            refused[finding.name] = (
                f"{finding.name}: its remedy would leave {len(rest)} of {plural(len(left), 'sample')}{where}, too few to "
                "learn from and measure on; mend the files themselves"
            )
            continue
        left = rest
        kept.append(finding)
    return kept


def _look_again(report: InspectionReport) -> InspectionReport | SegwrightError:
    try:
        return inspect(report.source, report.format)
    except SegwrightError as error:
        return error


def _in_vain(again: InspectionReport | SegwrightError, findings: Sequence[Finding]) -> dict[str, str]:
    """By the name of each finding whose remedy was written and did not help, why it is not kept."""
    first = _about_masks(findings)
    tried = [finding for finding in findings if finding is first or not _has_masks(finding)]
    if isinstance(again, SegwrightError):
        return {finding.name: f"{finding.name}: with its remedy nothing would open: {again}" for finding in tried}
    there: dict[str, set[str]] = {finding.name: {*finding.keys} for finding in again.findings}
    return {
        finding.name: f"{finding.name}: it would still be there after its remedy"
        for finding in tried
        if finding.name in there and (not finding.keys or there[finding.name] & {*finding.keys})
    }


def _has_masks(finding: Finding) -> bool:
    return finding.fix is not None and finding.fix.masks is not None


def _about_masks(findings: Sequence[Finding]) -> Finding | None:
    """The first finding about masks, which gives their meaning; another look tells whether more is needed."""
    return next(filter(_has_masks, findings), None)


def _restore(path: Path, before: bytes | None) -> None:
    if before is None:
        path.unlink()
    else:
        replace_file(path, before)


def _new() -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    document.add(tomlkit.comment(HEADER))
    return document


def _list(document: tomlkit.TOMLDocument, name: str) -> Array:
    """The list under a key, made where it is not there yet, and ready for lines of its own."""
    if name not in document:
        _add(document, name, tomlkit.array().multiline(True))
    return cast(Array, document[name])


def _add(document: tomlkit.TOMLDocument, name: str, value: Item) -> None:
    """Add a key before the table: that ends where the next begins."""
    rest = document.pop("masks") if "masks" in document else None
    document.add(name, value)
    if rest is not None:
        document.add("masks", rest)


def _axes(document: tomlkit.TOMLDocument, findings: Sequence[Finding]) -> list[str]:
    """The first finding about axes names them, where nobody has."""
    finding = next((finding for finding in findings if finding.fix is not None and finding.fix.axes is not None), None)
    if finding is None or finding.fix is None or "axes" in document:
        return []
    names = tomlkit.string(str(finding.fix.axes)).comment(finding.name)
    _add(document, "axes", names)
    return [f"axes: {finding.fix.axes} for {finding.name}"]


def _drop(document: tomlkit.TOMLDocument, findings: Sequence[Finding]) -> list[str]:
    there = set(document.get("drop", []))
    changes = []
    for finding in findings:
        new = [key for key in (finding.fix.drop if finding.fix else ()) if key not in there]
        for key in new:
            _list(document, "drop").add_line(key, comment=finding.name)
        there.update(new)
        if new:
            changes.append(f"drop: {plural(len(new), 'sample')} for {finding.name}")
    if changes:
        _list(document, "drop").add_line(indent="")
    return changes


def _group(document: tomlkit.TOMLDocument, findings: Sequence[Finding]) -> list[str]:
    dropped, known = set(document.get("drop", [])), [set(group) for group in document.get("groups", [])]
    pairs = [
        (group[0], key) for finding in findings for group in (finding.fix.groups if finding.fix else ()) for key in group[1:]
    ]
    groups = [[key for key in group if key not in dropped] for group in groups_of(pairs)]
    new = [group for group in groups if len(group) > 1 and not any(set(group) <= there for there in known)]
    if not new:
        return []
    reasons = ", ".join(finding.name for finding in findings if finding.fix and finding.fix.groups)
    array = _list(document, "groups")
    for index, group in enumerate(new):
        array.add_line(group, comment=reasons if index == 0 else None)
    array.add_line(indent="")
    return [f"groups: {plural(len(new), 'group')} of samples that belong together for {reasons}"]


def _nodata(document: tomlkit.TOMLDocument, findings: Sequence[Finding]) -> list[str]:
    changes = []
    for finding in findings:
        for number in finding.fix.nodata if finding.fix else ():
            there = document.get("nodata", [])
            if not isinstance(there, list):  # one number, as a person may write it
                there = [there]
            if number in there:
                continue
            if there and not isinstance(document["nodata"], list):
                document["nodata"] = tomlkit.item(there)
            _list(document, "nodata").append(number)
            changes.append(f"nodata: {number} for {finding.name}")
    return changes


def _masks(document: tomlkit.TOMLDocument, findings: Sequence[Finding]) -> list[str]:
    """Write the meaning of the masks that the first finding about them gives."""
    finding = _about_masks(findings)
    if finding is None or finding.fix is None or finding.fix.masks is None:
        return []
    given: dict[str, Any] = finding.fix.masks
    if "masks" not in document:
        table = tomlkit.table()
        table.comment(finding.name)
        document.add("masks", table)
    table = document["masks"]
    changes = []
    for key in [key for key in table if key not in given]:
        changes.append(f"masks.{key}: was {table[key]}, is taken away for {finding.name}")
        del table[key]
    for key, value in given.items():
        if key not in dataset_file.MASK_KEYS or value is None or key in table and table[key] == value:
            continue
        changes.append(f"masks.{key}: {f'was {table[key]}, is ' if key in table else ''}{value} for {finding.name}")
        table[key] = value
    return changes
