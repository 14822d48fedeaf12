from types import SimpleNamespace

import pytest

from segwright.planning.findings import findings, listed, plural, size_text

FINE = {
    "count": 100, "looked_at": 100, "with_truth": 100, "class_names": ("sky", "road"), "axes": 2, "size_min": (8, 8),
    "size_max": (8, 8), "size_common": (8, 8), "size_count": 1, "channels": {3: 100}, "dtypes": {"uint8": 100},
    "spacing_mm": None, "mean_shift": 0.2, "class_fractions": (0.6, 0.4), "void_fraction": 0.0, "class_images": (100, 90),
    "objects": (SimpleNamespace(count=100, area_median=300.0), SimpleNamespace(count=90, area_median=200.0)),
    "has_instances": False,
}  # fmt: skip


def said(**changes):
    return findings(SimpleNamespace(**(FINE | changes)))


def test_nothing_unusual():
    assert said() == [(False, "Nothing unusual: one size, one kind of image, every class present and frequent enough.")]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"count": 24}, "Only 24 images: scores will be uncertain"),
        ({"with_truth": 97}, "3 of the 100 images looked at have no mask"),
        ({"channels": {1: 60, 3: 40}}, "The number of channels differs: 60 images with 1 and 40 images with 3."),
        ({"dtypes": {"uint8": 99, "uint16": 1}}, "different types (99 as uint8 and 1 as uint16)"),
        ({"mean_shift": 2.34}, "by 2.3 times the contrast inside one: normalise each image"),
        ({"spacing_mm": (5.0, 1.0, 1.0)}, "Pixels are 5.0 times as long along one axis"),
        ({"class_images": (100, 0), "class_fractions": (1.0, 0.0)}, "Not one pixel of road: a model can neither learn"),
        ({"class_fractions": (0.9995, 0.0005)}, "Under 0.1 % of the pixels: road (0.05 %)"),
        ({"class_images": (100, 2)}, "In few of the images: road (2 of 100)"),
        ({"class_fractions": (0.97, 0.03)}, "sky covers 97.0 % of the pixels: pixel accuracy says little"),
        ({"void_fraction": 0.33}, "33 % of the pixels are void"),
        (
            {"objects": (FINE["objects"][0], SimpleNamespace(count=90, area_median=3.0))},
            "pieces of road are specks of at most 4",
        ),
    ],
)
def test_each_by_hand(changes, sentence):
    assert any(is_warning and sentence in text for is_warning, text in said(**changes))


def test_facts_that_are_no_warning():
    sizes = said(size_count=3, size_min=(8, 8), size_max=(20, 30), size_common=(8, 10))
    assert sizes == [(False, "3 sizes, sides from 8 × 8 to 20 × 30, most often 8 × 10.")]
    assert said(has_instances=True) == [(False, "The masks tell objects of one class apart, even where they touch.")]


def test_without_truth_nothing_is_said_of_classes():
    assert len(said(with_truth=0, class_images=(0, 0), class_fractions=(0.0, 0.0))) == 1


def test_words():
    assert listed(["a"]) == "a" and listed(["a", "b"]) == "a and b" and listed("abcdefgh") == "a, b, c, d, e, f and 2 more"
    assert plural(1, "image") == "1 image" and plural(2, "class") == "2 classes" and size_text((3, 4, 5)) == "3 × 4 × 5"
