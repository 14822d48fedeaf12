import numpy as np
import pytest

from segwright.inspection.patient_groups import about_subjects, name_groups, step_groups
from segwright.inspection.sample_scan import SampleScan
from segwright.inspection.split_leakage import Together


def look(key, step=None, thumb=None):
    thumb = np.random.default_rng(abs(hash(key)) % 2**32).normal(size=(32, 32)) if thumb is None else thumb
    return SampleScan(
        key=key, part="", shape=(4, 4), channels=1, dtype="float32", scale=1.0, step=step, thumb=thumb.astype(np.float32),
        digest=key.encode(), borders=None,
    )  # fmt: skip


def grouped(keys):
    clips, subjects = name_groups([look(key) for key in keys])
    return [[entry.key for entry in group] for group in clips], [[entry.key for entry in group] for group in subjects]


@pytest.mark.parametrize(
    ("keys", "subjects"),
    [
        (["p1_a1", "p1_a2", "p2_a1", "p2_a2"], [["p1_a1", "p1_a2"], ["p2_a1", "p2_a2"]]),
        (["train__p1-2", "val__p1-1", "val__p2-1"], [["val__p1-1", "train__p1-2"]]),
        (["f7_0_0", "f7_0_64", "f7_64_0", "f8_0_0", "f8_0_64"], [["f7_0_0", "f7_0_64"], ["f8_0_0", "f8_0_64"]]),
        (["f7_0_0", "f7_1_1", "f8_0_0", "f8_1_1"], [["f7_0_0", "f7_1_1"], ["f8_0_0", "f8_1_1"]]),
        (["img_1", "img_2", "img_3"], []),  # all alike: no name of a subject
        (["cat_1", "cat_2", "dog_1", "dog_2"], []),  # kinds, not individuals
        (["2007_000032", "2007_000033", "2008_000001", "2008_000002"], []),  # years
        (["000000142238", "000000439180"], []),
        (["a", "b"], []),
    ],
)
def test_names(keys, subjects):
    assert grouped(keys) == ([], subjects)


def test_a_clip_is_long_and_its_neighbours_are_alike():
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(12, 32, 32)) * 0.3, axis=0) + rng.normal(size=(32, 32))
    frames = [look(f"v1_{i:03}", thumb=walk[i]) for i in range(12)]
    others = [look(f"v2_{i:03}") for i in range(12)]
    clips, subjects = name_groups([*frames, *others])
    assert (
        [len(group) for group in clips] == [12] and clips[0][0].key == "v1_000" and [len(group) for group in subjects] == [12]
    )
    parts = {entry.key: "val" if entry.key > "v1_008" and entry.key < "v2" else "train" for entry in (*frames, *others)}
    findings = about_subjects([*frames, *others], Together(parts))
    assert [(finding.name, finding.level) for finding in findings] == [
        ("same-clip-across-splits", "warning"),
        ("same-subject", "note"),
    ]
    known = Together(parts, known=findings[0].fix.groups)
    assert about_subjects([*frames, *others], known)[0].level == "note"


def scans(count):
    """Pairs 2k - 1, 2k with one step each; every fifth pair is stored without fractions."""
    return [look(f"h_{i:03}", None if (i + 1) // 2 % 5 == 0 else 3.0 + (i + 1) // 2 / 7) for i in range(1, count + 1)]


def test_equal_steps_are_one_scan_and_prove_the_rule_of_numbers():
    looks = scans(40)
    groups = step_groups(looks)
    assert len(groups) == 16 + 20 and ["h_009", "h_010"] in groups  # 16 by their step, then all 20 by their number
    (finding,) = about_subjects(looks, Together({entry.key: "train" for entry in looks}))
    assert finding.name == "same-subject" and len(finding.fix.groups) == 20 and finding.numbers["numbered_pairs"] == 20
    assert "2k - 1 and 2k" in finding.evidence
    torn = {entry.key: "val" if index == 0 else "train" for index, entry in enumerate(looks)}
    assert about_subjects(looks, Together(torn))[0].name == "same-subject-across-splits"


def test_a_step_that_all_share_tells_nothing():
    assert step_groups([look(f"h_{i}", 1 / 255) for i in range(6)]) == []
    assert step_groups([look(f"h_{i}", 1 / 255) for i in range(30)] + [look("x", 2.5), look("y", 3.5)]) == []
    assert step_groups([look(f"h_{i}", 1.0 + i) for i in range(6)]) == []
