"""Facts of published weights."""

from segwright.core.weights import Intake, Weights


def test_by_hand():
    weights = Weights(
        preset="fcn", address="https://example.org/a/b.pth", licence="unstated", trained_on="VOC", classes=("a", "b")
    )
    assert (weights.file, weights.num_classes, weights.intake) == ("b.pth", 2, Intake())
    assert Weights(preset="x", address="hf://o/n/f.bin", licence="MIT", trained_on="A", classes=150).num_classes == 150
