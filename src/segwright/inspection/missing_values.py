"""Pixels that nobody measured: those that the files name, and those that look as if they were."""

import math
from collections import Counter
from collections.abc import Sequence

from segwright.inspection.finding import Finding, Fix, listed, plural, some
from segwright.inspection.sample_scan import SampleScan


def about_missing(looks: Sequence[SampleScan]) -> list[Finding]:
    """A note on missing values that are declared, a warning of those that are not."""
    return [*_declared([look for look in looks if look.missing], len(looks)), *_undeclared(looks)]


def _declared(holey: Sequence[SampleScan], count: int) -> list[Finding]:
    if not holey:
        return []
    pixels = sum(math.prod(look.shape) for look in holey)
    missing = sum(look.missing for look in holey)
    empty = tuple(look.key for look in holey if look.missing == math.prod(look.shape))
    evidence = f"In {len(holey)} of {plural(count, 'image')}, {100 * missing / pixels:.3g} % of the pixels have no value: "
    evidence += "nodata, NaN or infinity."
    if empty:
        evidence += f" {len(empty)} of them hold{'s' * (len(empty) == 1)} none at all ({some(empty)})."
    return [
        Finding(
            "missing-values",
            "note",
            evidence,
            "Nothing has to be done: they are left out of statistics, training and scores, and are void in predictions.",
            {"images": len(holey), "share": missing / pixels, "without_any": len(empty)},
            tuple(look.key for look in holey),
        )
    ]


def _undeclared(looks: Sequence[SampleScan]) -> list[Finding]:
    found = [look for look in looks if look.undeclared is not None]
    if not found:
        return []
    counted = Counter(look.undeclared for look in found if look.undeclared is not None)
    numbers = [_number(value) for value, _ in counted.most_common()]
    keys = tuple(look.key for look in found)
    where = f"{len(found)} of {plural(len(looks), 'image')} ({some(keys)})"
    return [
        Finding(
            "undeclared-nodata",
            "warning",
            f"{listed([*map(str, numbers)])} fills areas of {where}, far off all their other values, and would be taken for a "
            "measurement.",
            "If it stands for missing values, say so: in the files, where they are TIFF, by gdal_edit.py -a_nodata "
            f"{numbers[0]} FILE.tif, which adds a tag and changes no pixel; or by nodata = {numbers} in dataset.toml.",
            {"images": {str(number): count for number, (_, count) in zip(numbers, counted.most_common(), strict=True)}},
            keys,
            Fix(nodata=tuple(numbers)),
        )
    ]


def _number(value: float) -> float:
    """A number as people write it: -9999 and not -9999.0."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
