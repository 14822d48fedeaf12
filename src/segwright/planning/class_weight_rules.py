"""Class weights that a person names by their rule: a plan holds the numbers that these come to on its data."""

import re
from collections.abc import Sequence
from typing import cast, get_args

from segwright.data.class_weights import Rule, class_weights
from segwright.data.fingerprint import Fingerprint

NAMED = re.compile(rf"""(class_weights\s*=\s*)["']?({"|".join(get_args(Rule))})\b["']?""")


def with_class_weights(settings: Sequence[str], found: Fingerprint) -> list[str]:
    """Settings such as `task.criterion.class_weights=median_frequency` with the numbers in place of the rule's name.

    So are those inside a value: `task.criterion.terms=[{kind="focal", class_weights="root"}, {kind="dice"}]`.
    """

    def numbers(match: re.Match[str]) -> str:
        return match[1] + str(list(class_weights(found.class_fractions, found.class_images, cast(Rule, match[2]))))

    return [NAMED.sub(numbers, setting) for setting in settings]
