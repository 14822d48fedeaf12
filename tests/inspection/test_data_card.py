from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.data.fingerprint import fingerprint
from segwright.inspection.data_card import fact_rows, size_table, write_data_card
from segwright.inspection.finding import Finding
from segwright.inspection.inspect import InspectionReport, inspect

ILL = Finding("off-by-one", "error", "1 to 3 & never 0.", "Say so.", {}, ("a",))


def reported(dataset, *findings, at_most=200):
    sizes = {sample.grid.shape: len(dataset) for sample in [dataset[0]]}
    looked_at = min(at_most, len(dataset))
    return InspectionReport(
        source=dataset.source,
        root=None,
        count=len(dataset),
        looked_at=looked_at,
        compared=looked_at,
        dropped=0,
        parts={},
        sizes=sizes,
        areas=(3, 0, 2),
        findings=findings,
        dataset=dataset,
        measured=fingerprint(dataset, at_most=at_most),
    )


def card(dataset, path, *findings, **options):
    write_data_card(path, reported(dataset, *findings), **options)
    return path.read_text(encoding="utf-8")


def test_by_hand_everything_is_there(truths, tmp_path, read_html):
    tags = read_html(card(truths, tmp_path / "new" / "card.html", ILL))
    text = "".join(tags.text)
    for part in (
        *("6 images, 3 classes.", "12 × 16", "uint8", "Findings", "off-by-one", "1 to 3 & never 0.", "Say so.", "Classes"),
        *("Objects", "16 to 63", "Intensity", "12 × 16, s0", "Source"),
    ):
        assert part in text, part
    assert tags.seen.count("img") == 6  # all, as there are fewer than would be shown
    found = fingerprint(truths)
    most = truths.classes.names[int(np.argmax(found.class_fractions))]
    assert text.index(most, text.index("Share of pixels")) < text.index("car", text.index("Share of pixels"))


def test_a_real_set(clean, tmp_path, read_html):
    write_data_card(tmp_path / "card.html", inspect(clean.root))
    text = "".join(read_html((tmp_path / "card.html").read_text(encoding="utf-8")).text)
    assert "30 in train, 8 in val" in text and "Nothing: no disease that is looked for was found." in text and "48 × 64" in text


def test_examples_are_chosen_or_given(truths, tmp_path, read_html):
    many = replace(truths, keys=tuple(f"s{i}" for i in range(40)))
    tags = read_html(card(many, tmp_path / "card.html"))
    assert tags.seen.count("img") == 8 and {"12 × 16, s0", "12 × 16, s39"} <= set(tags.text)
    assert read_html(card(many, tmp_path / "card.html", examples=[truths[2]])).seen.count("img") == 1
    assert "Samples" not in card(many, tmp_path / "card.html", examples=[])


def test_a_sample_that_went_is_left_out(truths, tmp_path, read_html):
    def load(key):
        if key == "s2":
            raise FormatError("gone")
        return truths.load(key)

    report = replace(reported(truths), dataset=replace(truths, load=load))
    write_data_card(tmp_path / "card.html", report)
    assert read_html((tmp_path / "card.html").read_text(encoding="utf-8")).seen.count("img") == 5


def test_a_large_set_says_how_much_was_looked_at(truths, tmp_path, read_html):
    report = reported(truths, at_most=4)
    write_data_card(tmp_path / "card.html", report)
    text = "".join(read_html((tmp_path / "card.html").read_text(encoding="utf-8")).text)
    assert (
        "4 of them were looked at, drawn at random; small pictures of 4 were compared." in text
        and "Measured on 4 samples, drawn at random." in text
    )
    assert ("looked at", "4, drawn at random; 4 compared by a small picture") in fact_rows(report)


def test_volumes_without_truth(classes, tmp_path, read_html):
    sample = Sample("v", np.random.default_rng(0).normal(size=(1, 4, 5, 6)), Grid((4, 5, 6), spacing_mm=(3.0, 1.0, 1.0)))
    text = "".join(read_html(card(Dataset("scans", classes, ("v",), lambda key: sample), tmp_path / "card.html")).text)
    assert "1 volume," in text and "4 × 5 × 6" in text and "3 × 1 × 1" in text and "4 × 5 × 6, v, without a mask" in text
    assert "Share of pixels" not in text


def test_nothing_that_can_be_read(truths, tmp_path, read_html):
    report = replace(reported(truths, ILL), dropped=2, dataset=None, measured=None)
    write_data_card(tmp_path / "card.html", report)
    text = "".join(read_html((tmp_path / "card.html").read_text(encoding="utf-8")).text)
    assert (
        "6 images." in text
        and "off-by-one" in text
        and fact_rows(report)
        == [
            ("source", "memory"),
            ("samples", "6"),
            ("left out", "2 by dataset.toml"),
        ]
    )


def test_one_size_needs_no_histogram(truths, tmp_path):
    assert "Sizes" not in card(truths, tmp_path / "card.html")
    report = replace(reported(truths), sizes={(12, 16): 5, (20, 30): 1})
    write_data_card(tmp_path / "card.html", report)
    assert "Sizes" in (tmp_path / "card.html").read_text(encoding="utf-8")


def test_many_sizes_end_in_one_row():
    table = size_table({(index, 5): index for index in range(1, 31)})
    assert table.count("<tr>") == 14 and "18 others" in table and table.index("19 × 5") < table.index("30 × 5")


def test_facts_for_a_terminal(truths):
    rows = dict(fact_rows(reported(truths)))
    assert (
        rows["source"] == "memory" and rows["images"] == "6" and rows["height × width"] == "12 × 16" and rows["channels"] == "3"
    )
    assert "in 5 images" in rows["class car"] and " ± " in rows["channel 0"]


def test_law_a_class_called_script_is_harmless(tmp_path, read_html):
    evil = Classes.of(["<script>alert(1)</script>", 'a" onerror="x'])
    class_map = np.random.default_rng(0).integers(0, 2, (8, 8))
    sample = Sample.of("<img src=x onerror=y>", np.zeros((1, 8, 8), np.uint8), Segmentation.semantic(class_map, evil))
    finding = Finding("unreadable", "error", "<script>evidence</script>", "<img>", {}, ("<b>",))
    tags = read_html(card(Dataset("</title><script>", evil, ("k",), lambda key: sample), tmp_path / "card.html", finding))
    assert "<script>alert(1)</script>" in "".join(tags.text) and tags.seen.count("img") == 1


def test_messages(truths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="card.html cannot be written"):
        card(truths, tmp_path / "file" / "card.html")
