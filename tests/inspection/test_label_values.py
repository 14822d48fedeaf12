"""The diseases themselves are in the zoo of test_inspect.py; here is what they are told from."""

import numpy as np
import pytest

from segwright.inspection.label_values import about_numbers, tally
from segwright.inspection.sample_scan import MaskLook, SampleScan


def look(key="a", numbers=None, edges=None, colors=None, itemsize=1):
    values = np.array(sorted(numbers)) if numbers else np.zeros(0, int)
    counts = np.array([numbers[value] for value in values]) if numbers else np.ones(len(colors or ()), int)
    mask = MaskLook(
        (8, 8), values, counts, np.array([(edges or {}).get(int(value), 0) for value in values]),
        None if colors is None else np.array(colors, np.uint8), itemsize,
    )  # fmt: skip
    return SampleScan(
        key=key, part="", shape=(8, 8), channels=1, dtype="uint8", scale=1.0, step=None, thumb=np.zeros((32, 32)), digest=b"",
        borders=None, mask=mask,
    )  # fmt: skip


def names(numbers, named, edges=None, **options):
    return [finding.name for finding in about_numbers([look(numbers=numbers, edges=edges, **options)], named)]


def test_a_tally_adds_up():
    found = tally([look("a", {0: 5, 3: 2}, {3: 2}), look("b", {3: 4})])
    assert list(found) == [0, 3] and (found[3].pixels, found[3].edges, found[3].masks) == (6, 2, ("a", "b"))
    assert found[3].thinness == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({0: 9, 1: 9}, None),
        ({0: 9, 1: 9, 2: 9, 255: 1}, None),
        ({0: 9, 1: 9, 2: 9}, {"classes": ["a", "b", "c"]}),
        ({1: 9, 2: 9}, {"classes": ["a", "b", "c"]}),  # the first class is not there: that is another disease
        ({0: 9, 1: 9, 255: 9}, {"classes": ["a", "b"], "ignore_index": 255}),
        ({0: 9, 1: 9, 2: 9}, {"classes": ["a", "b"], "ignore_index": 2}),
        ({0: 9, 1: 9, 2: 9}, {"classes": ["a", "b"], "nothing_index": 2}),
        ({0: 9, 255: 9}, {"classes": ["a", "b"], "values": [0, 255]}),
        ({0: 9, 1: 9}, {"classes": ["void", "road"], "ignore_index": 0}),
        ({0: 9, 1: 9, 7: 9}, {"classes": ["cell"], "masks": "instances"}),
        ({0: 9, 70: 9, 90: 9}, {"classes": 3}),  # told when it is opened
    ],
)
def test_what_is_well(numbers, named):
    assert names(numbers, named) == []


def test_wide_masks_without_names_are_maps_of_objects():
    assert names({0: 9, 70: 9, 90: 9}, None, itemsize=2) == []


@pytest.mark.parametrize(
    ("edges", "name"),
    [({0: 90, 1: 1, 2: 1, 3: 1}, "zero-is-void"), ({0: 1, 3: 90}, "number-without-class")],
)
def test_of_two_candidates_for_void_the_thinner_is_it(edges, name):
    assert names({0: 100, 1: 100, 2: 100, 3: 100}, {"classes": ["a", "b", "c"]}, edges) == [name]
    assert names({0: 100, 1: 100, 2: 100, 3: 100}, {"classes": ["background", "b", "c"]}, edges) == ["number-without-class"]


def test_an_ignored_class_gets_the_number_that_nothing_has():
    (unknown, ignored) = about_numbers([look(numbers={0: 9, 1: 9, 255: 3})], {"classes": ["road", "car"], "ignore_index": 0})
    assert unknown.name == "number-without-class" and ignored.name == "ignore-inside"
    assert ignored.fix.masks == {"classes": ["road", "car"], "ignore_index": 255}


def test_colors():
    colors = [[1, 2, 3], [0, 0, 0]]
    (finding,) = about_numbers([look(colors=colors)], None)
    assert finding.name == "rgb-masks" and finding.level == "error" and finding.fix.masks["masks"] == "colors"
    assert finding.numbers["colors"] == [[1, 2, 3, 1], [0, 0, 0, 1]]
    (finding,) = about_numbers([look(colors=colors)], {"classes": ["a"], "palette": [[1, 2, 3]]})
    assert finding.level == "note" and finding.fix is None
    blurred = [[red, green, 0] for red in range(20) for green in range(20)]
    (finding,) = about_numbers([look(colors=blurred)], None)
    assert finding.fix is None and "blurred" in finding.remedy
