import re

from segwright.inspection.finding import MEANING, listed, plural, size_text, some


def test_words():
    assert listed(["a"]) == "a" and listed(["a", "b"]) == "a and b" and listed("abcdefgh") == "a, b, c, d, e, f and 2 more"
    assert listed([]) == "" and listed("abc", 1) == "a and 2 more"
    assert plural(1, "image") == "1 image" and plural(2, "class") == "2 classes" and size_text((3, 4, 5)) == "3 × 4 × 5"


def test_long_keys_are_cut():
    assert some(["a" * 40, "b"]) == f"{'a' * 31}… and b" and some("abcde") == "a, b, c and 2 more"


def test_names_are_plain():
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and sentence for name, sentence in MEANING.items())
