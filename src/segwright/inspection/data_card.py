"""The page of a data set: what is in it, in numbers and pictures, and what that means for learning from it."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10
from pathlib import Path

import numpy as np

from segwright.core import Dataset, Sample
from segwright.core.atomic_files import replace_file
from segwright.core.errors import SegwrightError
from segwright.core.visualise import as_rgb, overlay
from segwright.data.fingerprint import Fingerprint
from segwright.inspection.finding import Finding, plural, size_text
from segwright.inspection.inspect import InspectionReport
from segwright.reports.html.page import legend, meter, page, section, small_percent, swatch
from segwright.reports.html.pictures import drawable, figure

STRENGTH = 0.5  # of class colours over the image
DECADES = 4  # of the bars of class shares: from 0.01 % to 100 %
SHOWN = 8  # two rows on a wide screen
MAX_LEGEND = 40  # names in a legend; beyond, the table says it
MAX_SIZES = 12  # rows of the histogram of sizes; the rest is one more


def write_data_card(path: Path | str, report: InspectionReport, examples: Sequence[Sample] | None = None) -> None:
    """Write one HTML page on a data set that needs no other file and no network.

    `examples` are the samples to show; without them, some are taken at even distances.

    Raises:
        OutputError: the path cannot be written.
    """
    dataset, found = report.dataset, report.measured
    shown = _some_samples(dataset) if examples is None else examples
    lead = f"{plural(report.count, 'volume' if found is not None and found.axes == 3 else 'image')}"
    lead += f", {plural(len(dataset.classes), 'class')}." if found is not None and dataset is not None else "."
    if report.parts:
        lead += f" {', '.join(f'{count} in {part}' for part, count in report.parts.items())}."
    if report.looked_at < report.count:
        lead += (
            f" {report.looked_at} of them were looked at, drawn at random; small pictures of {report.compared} were compared."
        )
    sections = [
        f'<section><div class="small">{_headline(report)}</div></section>',
        section("Findings", FINDING_NOTE, _finding_list(report.findings), side=True),
    ]
    if dataset is not None and found is not None:
        measured = f" Measured on {found.looked_at} samples, drawn at random." if found.looked_at < found.count else ""
        sections += [
            section("Classes", CLASS_NOTE + measured, _class_table(dataset, found) if found.with_truth else "", side=True),
            section("Sizes", SIZE_NOTE, size_table(report.sizes) if len(report.sizes) > 1 else "", side=True),
            section("Objects", AREA_NOTE + measured, _area_table(report.areas) if found.with_truth else "", side=True),
            section("Intensity", INTENSITY_NOTE + measured, _intensity_table(found), side=True),
        ]
    if dataset is not None:
        note = "Click a picture, or reach it with the tab key, to see it large."
        sections.append(section("Samples", note, _gallery(dataset, shown)))
    title = "/".join(Path(report.source).parts[-2:]) or report.source
    replace_file(Path(path), page(title, "Data card", lead, sections, {"Source": report.source}).encode())


def _some_samples(dataset: Dataset | None) -> list[Sample]:
    """Samples at even distances, of those that can be read."""
    samples: list[Sample] = []
    if dataset is None:
        return samples
    for index in np.unique(np.linspace(0, len(dataset) - 1, SHOWN).round().astype(int)):
        try:
            samples.append(dataset[int(index)])
        except SegwrightError:  # a file that went since it was looked at
            continue
    return samples


FINDING_NOTE = "What stands out, the worst first, and what to do about it. The names are those of segwright inspect --json."
SIZE_NOTE = "Images of each size, height first."
AREA_NOTE = "Objects of all classes by their area in pixels: instances where the masks have them, else connected pieces."
CLASS_NOTE = (
    "Share of the known pixels, on a logarithmic scale from 0.01 % to 100 %. Objects are instances where the masks have them, "
    "else connected pieces; sizes are in pixels, the 5th percentile tells the small ones."
)
INTENSITY_NOTE = (
    "Values as stored, over known pixels. The bar reaches from the 0.5th to the 99.5th percentile, the gap in it is the mean."
)


def _finding_list(findings: Sequence[Finding]) -> str:
    """The findings with evidence and remedy."""
    if not findings:
        return '<ul class="findings"><li class=calm>Nothing: no disease that is looked for was found.</li></ul>'
    rows = [
        f"<li{' class=calm' if finding.level == 'note' else ''}><strong>{escape(finding.name)}</strong> ({finding.level})<br>"
        f"{escape(finding.evidence)}<br><em>{escape(finding.remedy)}</em></li>"
        for finding in findings
    ]
    return f'<ul class="findings">{"".join(rows)}</ul>'


def fact_rows(report: InspectionReport) -> list[tuple[str, str]]:
    """The data set as rows of fact and value for a terminal: what the card shows, without its pictures and findings."""
    found = report.measured
    rows = [("source", report.source), *((name.lower(), value) for name, value in _figures(report))]
    if report.looked_at < report.count:
        rows.append(("looked at", f"{report.looked_at}, drawn at random; {report.compared} compared by a small picture"))
    if report.dropped:
        rows.append(("left out", f"{report.dropped} by dataset.toml"))
    if found is None:
        return rows
    if found.looked_at < found.count:
        rows.append(("measured on", f"{found.looked_at}, drawn at random"))
    for index, channel in enumerate(found.intensity):
        rows.append(
            (f"channel {index}", f"{channel.mean:.4g} ± {channel.std:.4g}, from {channel.low:.4g} to {channel.high:.4g}")
        )
    if found.with_truth:
        for name, share, images in zip(found.class_names, found.class_fractions, found.class_images, strict=True):
            rows.append((f"class {name}", f"{small_percent(share)} of the pixels, in {plural(images, 'image')}"))
    return rows


def _figures(report: InspectionReport) -> list[tuple[str, str]]:
    """The facts that stand in large figures, by name."""
    found = report.measured
    if found is None:
        return [("Samples", str(report.count))]
    axes = "Depth × height × width" if found.axes == 3 else "Height × width"
    result = [
        ("Volumes" if found.axes == 3 else "Images", str(report.count)),
        *((part.capitalize(), str(count)) for part, count in report.parts.items()),
        (axes if found.size_count == 1 else f"{axes}, most often", size_text(found.size_common)),
        ("Channels", " or ".join(map(str, found.channels))),
        ("Stored as", ", ".join(found.dtypes)),
        ("Classes", str(len(found.class_names))),
        ("Void", small_percent(found.void_fraction)),
    ]
    if found.spacing_mm is not None:
        result.append(("Spacing, mm", " × ".join(f"{value:.3g}" for value in found.spacing_mm)))
    return result


def _headline(report: InspectionReport) -> str:
    """The facts in large figures."""
    return "".join(
        f'<div><div class="label">{escape(name)}</div><div class="value">{escape(value)}</div></div>'
        for name, value in _figures(report)
    )


def size_table(sizes: Mapping[tuple[int, ...], int]) -> str:
    """A histogram of the sizes, the smallest first; beyond MAX_SIZES the rarest are one row."""
    most = sorted(sizes, key=lambda size: -sizes[size])[:MAX_SIZES]
    rows = [(size_text(size), sizes[size]) for size in sorted(most, key=lambda size: (np.prod(size), size))]
    rest = sum(sizes.values()) - sum(count for _, count in rows)
    rows += [(f"{len(sizes) - len(most)} others", rest)] if rest else []
    return _histogram("Size", "Images", rows)


def _area_table(areas: Sequence[int]) -> str:
    """A histogram of objects by the power of four that their area reaches, from the first to the last that occurs."""
    bins = [index for index, count in enumerate(areas) if count]
    if not bins:
        return ""
    rows = [(f"{4**index:,} to {4 ** (index + 1) - 1:,}", areas[index]) for index in range(bins[0], bins[-1] + 1)]
    return _histogram("Area", "Objects", rows)


def _histogram(name: str, counted: str, rows: Sequence[tuple[str, int]]) -> str:
    """A table of names and counts, with a bar for each count."""
    highest = max((count for _, count in rows), default=1)
    lines = [
        f'<tr><td>{escape(label)}</td><td class="long">{meter(str(count), count / max(highest, 1))}</td></tr>'
        for label, count in rows
    ]
    return (
        f'<div class="scroll"><table><thead><tr><th>{name}</th><th class="main-column">{counted}</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _class_table(dataset: Dataset, found: Fingerprint) -> str:
    """A table of the classes, most frequent first: share of pixels, images, objects and their sizes."""
    rows = []
    for k in sorted(range(len(dataset.classes)), key=lambda k: -found.class_fractions[k]):
        share, images, objects = found.class_fractions[k], found.class_images[k], found.objects[k]
        length = max(0.0, 1 + log10(share) / DECADES) if share > 0 else 0.0
        sizes = (objects.area_median, objects.area_5th, objects.extent_median) if objects.count else ()
        numbers = [f"{objects.count}", *(f"{value:.0f}" for value in sizes), *["–"] * (3 - len(sizes))]
        rows.append(
            f"<tr><td>{swatch(dataset.classes.colors[k])}{escape(dataset.classes.names[k])}</td>"
            f'<td class="long">{meter(small_percent(share), length)}</td>'
            f"<td>{meter(str(images), images / max(found.with_truth, 1))}</td>"
            + "".join(f'<td class="num">{number}</td>' for number in numbers)
            + "</tr>"
        )
    return (
        '<div class="scroll"><table><thead><tr><th>Class</th><th class="main-column">Share of pixels</th><th>Images</th>'
        '<th class="num">Objects</th><th class="num">Median area</th><th class="num">5th %</th>'
        f'<th class="num">Median width</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _intensity_table(found: Fingerprint) -> str:
    """A table of the channels: mean, standard deviation and percentiles, with the range drawn."""
    lowest = min(min(channel.low for channel in found.intensity), 0)
    span = max(max(channel.high for channel in found.intensity) - lowest, 1e-12)
    rows = []
    for index, channel in enumerate(found.intensity):
        left, width, mark = (
            100 * value / span for value in (channel.low - lowest, channel.high - channel.low, channel.mean - lowest)
        )
        bar = (
            f'<span class="track"><span class="fill" style="left:{left:.1f}%;width:{width:.1f}%"></span>'
            f'<span class="mark" style="left:{mark:.1f}%"></span></span>'
        )
        numbers = (channel.mean, channel.std, channel.low, channel.median, channel.high)
        rows.append(
            f'<tr><td>{index}</td><td class="main-column">{bar}</td>'
            + "".join(f'<td class="num">{value:.4g}</td>' for value in numbers)
            + "</tr>"
        )
    heads = "".join(f'<th class="num">{name}</th>' for name in ("Mean", "Std", "0.5 %", "Median", "99.5 %"))
    return (
        f'<div class="scroll"><table><thead><tr><th>Channel</th><th class="main-column">Range</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _gallery(dataset: Dataset, examples: Sequence[Sample]) -> str:
    """The samples with their truth over them."""
    if not examples:
        return ""
    shown = []
    for sample in examples:
        caption = f"{size_text(sample.grid.shape)}, {sample.key}"
        if sample.truth is None:
            (image,) = drawable(sample.image)
            shown.append(figure(as_rgb(image), f"{caption}, without a mask"))
        else:
            image, class_map = drawable(sample.image, sample.truth.class_map())
            shown.append(figure(overlay(image, class_map, dataset.classes.palette, STRENGTH), caption))
    chips = legend(dataset.classes, range(len(dataset.classes))) if len(dataset.classes) <= MAX_LEGEND else ""
    return f'{chips}<div class="gallery">{"".join(shown)}</div>'
