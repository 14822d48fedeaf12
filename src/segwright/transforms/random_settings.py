"""What the settings of random changes have in common: a probability, a range, and the draw whether a change happens."""

import numpy as np

from segwright.core.errors import SettingError


def happens(probability: float, generator: np.random.Generator) -> bool:
    """Whether a change of this probability is made. A certain one draws no number: those to come stay as they are."""
    return probability == 1 or generator.random() < probability


def check_probability(name: str, probability: float) -> None:
    """See that a setting is a probability.

    Raises:
        SettingError: it is not.
    """
    if not 0 <= probability <= 1:
        raise SettingError(f"{name} is {probability}; give a number from 0 (never) to 1 (each crop)")


def check_range(name: str, ends: tuple[float, float], least: float, most: float, example: tuple[float, float]) -> None:
    """See that a setting is a range, the lower end first, inside what makes sense.

    Raises:
        SettingError: it is not.
    """
    low, high = ends
    if not least <= low <= high <= most:
        raise SettingError(
            f"{name} is {tuple(ends)}; give the lower and the upper end of a range "
            f"from {least:g} to {most:g}, such as {example}"
        )
