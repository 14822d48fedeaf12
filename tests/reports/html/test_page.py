import pytest

from segwright.core import Classes
from segwright.reports.html.page import facts, legend, meter, page, percent, section, small_percent, track

EVIL = "<script>alert('x')</script>\"&"


def test_by_hand_numbers():
    assert [percent(share) for share in (0, 0.6125, 1, float("nan"))] == ["0.0", "61.3", "100.0", "–"]
    assert [small_percent(share).replace("\u00a0", " ") for share in (0, 0.5, 0.0051, 0.00051, 1e-6, float("nan"))] == [
        "0 %", "50.0 %", "0.51 %", "0.051 %", "< 0.001 %", "–",
    ]  # fmt: skip


def test_bars_by_hand(read_html):
    assert "width:25.00%" in track(0.25) and "range" not in track(0.25)
    assert "left:20.00%;width:10.00%" in track(0.25, (0.2, 0.3))
    assert "fill" not in track(float("nan"), (float("nan"), float("nan")))
    assert "width:100.00%" in track(1.5)  # never beyond its end
    read_html(meter("<b>", 0.5, (0.1, 0.9)))


def test_law_a_page_is_whole_and_shows_what_it_is_given(read_html):
    html = page("Title", "Kind", "Lead.", [section("Part", "A note.", "<p>body</p>", side=True), ""], {"machine": "2 cores"})
    tags = read_html(html)
    text = " ".join(tags.text)
    assert all(word in text for word in ("Title", "Kind", "Lead.", "Part", "A note.", "body", "machine", "2 cores"))
    assert html.startswith("<!doctype html>") and tags.seen.count("html") == tags.seen.count("body") == 1
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html
    assert section("Empty", "note", "") == "" and facts({}) == ""


@pytest.mark.parametrize("place", range(6))
def test_law_words_from_outside_stay_words(read_html, place):
    words = [EVIL if index == place else "fine" for index in range(6)]
    html = page(
        words[0], words[1], words[2], [section(words[3], words[4], legend(Classes.of([words[5]]), [0]))], {words[0]: words[1]}
    )
    assert EVIL in "".join(read_html(html).text)
