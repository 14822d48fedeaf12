"""Facts of published weights."""

import pytest

from segwright.core.weights import Intake, Weights, is_permissive


def test_by_hand():
    weights = Weights(
        preset="fcn", address="https://example.org/a/b.pth", licence="unstated", trained_on="VOC", classes=("a", "b")
    )
    assert (weights.file, weights.num_classes, weights.intake) == ("b.pth", 2, Intake())
    assert Weights(preset="x", address="hf://o/n/f.bin", licence="MIT", trained_on="A", classes=150).num_classes == 150


@pytest.mark.parametrize(
    ("licence", "permissive"),
    [("Apache-2.0", True), ("MIT", True), (" bsd-3-clause ", True), ("BSD", True)]
    + [
        ("unstated (code BSD)", False),
        ("unstated", False),
        ("", False),
        (None, False),
        ("CC-BY-NC-4.0", False),
        ("GPL-3.0", False),
    ],
)
def test_only_what_is_known_to_be_permissive_is(licence, permissive):
    assert is_permissive(licence) == permissive
    weights = Weights(preset="x", address="hf://o/n/f.bin", licence=licence or "", trained_on="A", classes=2)
    assert weights.is_permissive == permissive
