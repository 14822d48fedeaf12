import numpy as np
import pytest

from segwright.core.errors import SettingError
from segwright.transforms.random_settings import check_probability, check_range, happens


def test_a_change_happens_as_often_as_it_should():
    generator = np.random.default_rng(0)
    assert not any(happens(0.0, generator) for _ in range(100))
    assert 200 < sum(happens(0.25, generator) for _ in range(1000)) < 300  # 250 expected; 3.6 standard deviations


def test_a_certain_change_draws_nothing():
    generator, other = np.random.default_rng(0), np.random.default_rng(0)
    assert happens(1.0, generator) and generator.random() == other.random()


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_no_probability_is_refused(probability):
    with pytest.raises(SettingError, match=r"blur is .*from 0 \(never\) to 1 \(each crop\)"):
        check_probability("blur", probability)
    check_probability("blur", 0.0)
    check_probability("blur", 1.0)


@pytest.mark.parametrize("ends", [(0.5, 0.4), (-1.0, 1.0), (0.0, 9.0), (float("nan"), 1.0)])
def test_a_range_upside_down_or_outside_is_refused(ends):
    with pytest.raises(SettingError, match=r"zoom is .*from 0 to 8, such as \(1, 2\)"):
        check_range("zoom", ends, 0, 8, (1, 2))
    check_range("zoom", (1, 2), 0, 8, (1, 2))
    check_range("zoom", (8, 8), 0, 8, (1, 2))
