from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.errors import OutputError
from segwright.planning.data_card import facts, write_data_card
from segwright.planning.fingerprint import fingerprint


def card(dataset, path, **options):
    write_data_card(path, dataset, fingerprint(dataset), **options)
    return path.read_text(encoding="utf-8")


def test_by_hand_everything_is_there(truths, tmp_path, read_html):
    tags = read_html(card(truths, tmp_path / "new" / "card.html"))
    text = "".join(tags.text)
    for part in (
        "6 images, 3 classes.",
        "12 × 16",
        "uint8",
        "Findings",
        "Only 6 images",
        "Classes",
        "Intensity",
        "12 × 16, s0",
        "Source",
    ):
        assert part in text, part
    assert tags.seen.count("img") == 6  # all, as there are fewer than would be shown
    found = fingerprint(truths)
    most = truths.classes.names[int(np.argmax(found.class_fractions))]
    assert text.index(most, text.index("Share of pixels")) < text.index("car", text.index("Share of pixels"))


def test_examples_are_chosen_or_given(truths, tmp_path, read_html):
    many = replace(truths, keys=tuple(f"s{i}" for i in range(40)))
    tags = read_html(card(many, tmp_path / "card.html"))
    assert tags.seen.count("img") == 8 and {"12 × 16, s0", "12 × 16, s39"} <= set(tags.text)
    assert read_html(card(many, tmp_path / "card.html", examples=[truths[2]])).seen.count("img") == 1
    assert "Samples" not in card(many, tmp_path / "card.html", examples=[])


def test_a_large_set_says_how_much_was_looked_at(truths, tmp_path, read_html):
    write_data_card(tmp_path / "card.html", truths, fingerprint(truths, at_most=4))
    assert "Measured on 4 of them, drawn at random." in "".join(read_html((tmp_path / "card.html").read_text()).text)
    assert ("looked at", "4, drawn at random") in facts(truths, fingerprint(truths, at_most=4))


def test_volumes_without_truth(classes, tmp_path, read_html):
    sample = Sample("v", np.random.default_rng(0).normal(size=(1, 4, 5, 6)), Grid((4, 5, 6), spacing_mm=(3.0, 1.0, 1.0)))
    text = "".join(read_html(card(Dataset("scans", classes, ("v",), lambda key: sample), tmp_path / "card.html")).text)
    assert "1 volume," in text and "4 × 5 × 6" in text and "3 × 1 × 1" in text and "4 × 5 × 6, v, without a mask" in text
    assert "Share of pixels" not in text


def test_facts_for_a_terminal(truths):
    rows = dict(facts(truths, fingerprint(truths)))
    assert (
        rows["source"] == "memory" and rows["images"] == "6" and rows["height × width"] == "12 × 16" and rows["channels"] == "3"
    )
    assert "in 5 images" in rows["class car"] and " ± " in rows["channel 0"] and "Only 6 images" in rows["note"]


def test_law_a_class_called_script_is_harmless(tmp_path, read_html):
    evil = Classes.of(["<script>alert(1)</script>", 'a" onerror="x'])
    class_map = np.random.default_rng(0).integers(0, 2, (8, 8))
    sample = Sample.of("<img src=x onerror=y>", np.zeros((1, 8, 8), np.uint8), Segmentation.semantic(class_map, evil))
    tags = read_html(card(Dataset("</title><script>", evil, ("k",), lambda key: sample), tmp_path / "card.html"))
    assert "<script>alert(1)</script>" in "".join(tags.text) and tags.seen.count("img") == 1


def test_messages(truths, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="card.html cannot be written"):
        card(truths, tmp_path / "file" / "card.html")
