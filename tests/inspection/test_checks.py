from types import SimpleNamespace

import pytest

from segwright.inspection.checks import about_images, about_masks
from segwright.inspection.finding import MEANING

FINE = {
    "count": 100, "looked_at": 100, "with_truth": 100, "class_names": ("sky", "road"), "spacing_mm": None, "mean_shift": 0.2,
    "class_fractions": (0.6, 0.4), "void_fraction": 0.0, "class_images": (100, 90),
    "objects": (SimpleNamespace(count=100, area_median=300.0), SimpleNamespace(count=90, area_median=200.0)),
}  # fmt: skip


def said(**changes):
    found = SimpleNamespace(**(FINE | changes))
    return [*about_images(found), *about_masks(found)]


def test_nothing_unusual():
    assert said() == []


@pytest.mark.parametrize(
    ("changes", "name", "sentence"),
    [
        ({"count": 24}, "few-samples", "Only 24 images: scores will be uncertain"),
        ({"mean_shift": 2.34}, "brightness-shift", "by 2.3 times the contrast inside one"),
        ({"spacing_mm": (5.0, 1.0, 1.0)}, "squashed-pixels", "Pixels are 5.0 times as long along one axis"),
        ({"class_fractions": (0.9995, 0.0005)}, "rare-classes", "Under 0.1 % of the pixels: road (0.05 %)"),
        ({"class_images": (100, 2)}, "seldom-classes", "In few of the images: road (2 of 100)"),
        ({"void_fraction": 0.33}, "much-void", "33 % of the pixels are void"),
        (
            {"objects": (FINE["objects"][0], SimpleNamespace(count=90, area_median=3.0))},
            "ragged-masks",
            "pieces of road are specks of at most 4",
        ),
    ],
)
def test_each_by_hand(changes, name, sentence):
    (finding,) = said(**changes)
    assert finding.name == name and finding.name in MEANING and finding.level == "note" and sentence in finding.evidence
    assert finding.remedy.endswith(".") and finding.fix is None and finding.numbers


def test_without_truth_nothing_is_said_of_classes():
    assert said(with_truth=0, class_images=(0, 0), class_fractions=(0.0, 0.0), void_fraction=0.5) == []
