"""The page of a data set: what is in it, in numbers and pictures, and what that means for learning from it."""

from collections.abc import Sequence
from html import escape
from math import log10
from pathlib import Path

import numpy as np

from segwright.core import Dataset, Sample
from segwright.core.files import replace_file
from segwright.core.picture import as_rgb, overlay
from segwright.evaluation.page import legend, meter, page, section, small_percent, swatch
from segwright.evaluation.pictures import drawable, figure
from segwright.planning.findings import findings, plural, size_text
from segwright.planning.fingerprint import Fingerprint

STRENGTH = 0.5  # of class colours over the image
DECADES = 4  # of the bars of class shares: from 0.01 % to 100 %
SHOWN = 8  # two rows on a wide screen
MAX_LEGEND = 40  # names in a legend; beyond, the table says it


def write_data_card(path: Path | str, dataset: Dataset, found: Fingerprint, examples: Sequence[Sample] | None = None) -> None:
    """Write one HTML page on a data set that needs no other file and no network.

    `found` is its fingerprint, `examples` are the samples to show; without them,
    some are taken at even distances.

    Raises:
        OutputError: the path cannot be written.
    """
    if examples is None:
        indices = np.unique(np.linspace(0, len(dataset) - 1, SHOWN).round().astype(int))
        examples = [dataset[int(index)] for index in indices]
    lead = f"{plural(found.count, 'volume' if found.axes == 3 else 'image')}, {plural(len(dataset.classes), 'class')}."
    if found.looked_at < found.count:
        lead += f" Measured on {found.looked_at} of them, drawn at random."
    notes = "".join(f"<li{'' if is_warning else ' class=calm'}>{escape(text)}</li>" for is_warning, text in findings(found))
    sections = [
        f'<section><div class="small">{headline(found)}</div></section>',
        section("Findings", "What stands out, and what to make of it.", f'<ul class="findings">{notes}</ul>', side=True),
        section("Classes", CLASS_NOTE, class_table(dataset, found) if found.with_truth else "", side=True),
        section("Intensity", INTENSITY_NOTE, intensity_table(found), side=True),
        section("Samples", "Click a picture, or reach it with the tab key, to see it large.", gallery(dataset, examples)),
    ]
    title = "/".join(Path(dataset.source).parts[-2:]) or dataset.source
    replace_file(Path(path), page(title, "Data card", lead, sections, {"Source": dataset.source}).encode())


CLASS_NOTE = (
    "Share of the known pixels, on a logarithmic scale from 0.01 % to 100 %. Objects are instances where the masks have them, "
    "else connected pieces; sizes are in pixels, the 5th percentile tells the small ones."
)
INTENSITY_NOTE = (
    "Values as stored, over known pixels. The bar reaches from the 0.5th to the 99.5th percentile, the gap in it is the mean."
)


def facts(dataset: Dataset, found: Fingerprint) -> list[tuple[str, str]]:
    """The data set as rows of fact and value for a terminal: what the card shows, without its pictures."""
    rows = [("source", dataset.source), *((name.lower(), value) for name, value in figures(found))]
    if found.looked_at < found.count:
        rows.append(("looked at", f"{found.looked_at}, drawn at random"))
    for index, channel in enumerate(found.intensity):
        rows.append(
            (f"channel {index}", f"{channel.mean:.4g} ± {channel.std:.4g}, from {channel.low:.4g} to {channel.high:.4g}")
        )
    if found.with_truth:
        for name, share, images in zip(found.class_names, found.class_fractions, found.class_images, strict=True):
            rows.append((f"class {name}", f"{small_percent(share)} of the pixels, in {plural(images, 'image')}"))
    return rows + [("note" if is_warning else "fact", text) for is_warning, text in findings(found)]


def figures(found: Fingerprint) -> list[tuple[str, str]]:
    """The facts that stand in large figures, by name."""
    axes = "Depth × height × width" if found.axes == 3 else "Height × width"
    result = [
        ("Volumes" if found.axes == 3 else "Images", str(found.count)),
        (axes if found.size_count == 1 else f"{axes}, most often", size_text(found.size_common)),
        ("Channels", " or ".join(map(str, found.channels))),
        ("Stored as", ", ".join(found.dtypes)),
        ("Classes", str(len(found.class_names))),
        ("Void", small_percent(found.void_fraction)),
    ]
    if found.spacing_mm is not None:
        result.append(("Spacing, mm", " × ".join(f"{value:.3g}" for value in found.spacing_mm)))
    return result


def headline(found: Fingerprint) -> str:
    """The facts in large figures."""
    return "".join(
        f'<div><div class="label">{escape(name)}</div><div class="value">{escape(value)}</div></div>'
        for name, value in figures(found)
    )


def class_table(dataset: Dataset, found: Fingerprint) -> str:
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


def intensity_table(found: Fingerprint) -> str:
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


def gallery(dataset: Dataset, examples: Sequence[Sample]) -> str:
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
