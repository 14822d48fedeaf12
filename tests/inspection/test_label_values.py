"""The diseases themselves are in the zoo of test_inspect.py; here is what they are told from."""

import numpy as np
import pytest

from segwright.inspection.label_values import about_numbers, tally
from segwright.inspection.sample_scan import MaskLook, SampleScan


def look(key="a", numbers=None, edges=None, itemsize=1, is_black_and_white=False):
    values = np.array(sorted(numbers))
    counts = np.array([numbers[value] for value in values])
    mask = MaskLook(
        (8, 8), values, counts, np.array([(edges or {}).get(int(value), 0) for value in values]), None, itemsize, counts,
        np.zeros_like(counts), is_black_and_white=is_black_and_white,
    )  # fmt: skip
    return SampleScan(
        key=key, part="", shape=(8, 8), channels=1, dtype="uint8", scale=1.0, step=None, thumb=np.zeros((32, 32)), digest=b"",
        borders=None, mask=mask,
    )  # fmt: skip


def names(numbers, named, edges=None, **options):
    return [finding.name for finding in about_numbers([look(numbers=numbers, edges=edges, **options)], named)]


def test_a_tally_adds_up():
    found = tally([look("a", {0: 5, 3: 2}, {3: 2}), look("b", {3: 4})])
    assert list(found) == [0, 3] and (found[3].pixels, found[3].edges, found[3].inside, found[3].masks) == (6, 2, 6, ("a", "b"))
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


def test_white_is_what_the_names_or_the_other_masks_say():
    white, plain = look("a", {0: 5, 255: 4}, is_black_and_white=True), look("b", {0: 7, 255: 2})
    assert list(tally([white])) == [0, 1] and list(tally([white, plain])) == [0, 255]
    assert list(tally([white, plain], {"classes": ["a", "b"]})) == [0, 1, 255]
    assert list(tally([white], {"classes": ["a", "b"], "values": [0, 255]})) == [0, 255]


def test_one_class_may_have_several_numbers():
    assert names({0: 9, 1: 9, 255: 9}, {"classes": ["a", "b"], "values": [0, [1, 255]]}) == []
    assert names({0: 9, 7: 9}, {"classes": ["a", "b"], "values": [0, [1, 255]]}) == ["number-without-class"]


@pytest.mark.parametrize(
    ("numbers", "name", "values"),
    [
        ((0, 128, 255), "scattered-numbers", [0, 128, 255]),  # evenly spread
        ((0, 100, 255), "void-or-class", [0, 100, 255]),
        ((0, 15, 255), "scattered-numbers", [0, 15]),  # 255 is void
        (tuple(range(256)), "void-or-class", [*range(256)]),
    ],
)
def test_255_among_numbers_that_nobody_named(numbers, name, values):
    (finding,) = about_numbers([look(numbers=dict.fromkeys(numbers, 9))], None)
    assert finding.name == name and finding.fix.masks["values"] == values
    assert len(finding.evidence) < 300


def test_two_numbers_are_background_and_foreground_whatever_they_are():
    assert names({0: 9, 200: 9}, None) == [] and names({0: 9, 65535: 9}, None, itemsize=2) == []
