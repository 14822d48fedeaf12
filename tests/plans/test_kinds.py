"""Settings are found by their annotations, whatever they are called."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
import tomlkit

from segwright.core.errors import SettingError
from segwright.core.lookup import Kind
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.plans.kinds import build, kinds_of, table_of


@dataclass(frozen=True, kw_only=True)
class Own:
    """Settings of somebody else, under names of their own."""

    likes: Annotated[Any, Kind("losses")]
    several: Annotated[tuple[Any, ...], Kind("losses")] = ()
    encoder: str = "a word, no kind"


def test_what_may_stand_where_comes_from_the_type():
    assert kinds_of(Own) == {"likes": Kind("losses"), "several": Kind("losses")}
    own = Own(likes=Dice(), several=(CrossEntropy(), Dice(smooth=1.0)))
    table = table_of(own, "", {"likes": "why"} | {".likes": "it is small"})
    text = tomlkit.dumps(table)
    assert '[likes]\nkind = "dice" # it is small' in text and text.count("[[several]]") == 2
    assert build(Own, tomlkit.parse(text).unwrap(), "", own_modules=False) == own


def test_a_missing_setting_is_named_by_its_path():
    with pytest.raises(SettingError, match="setting 'likes' is missing; add it to the plan"):
        build(Own, {}, "", own_modules=False)
    with pytest.raises(SettingError, match="setting 'part.likes' is missing"):
        build(Own, {}, "part", own_modules=False)


def test_a_module_of_ones_own_needs_a_word():
    with pytest.raises(SettingError, match="'likes.kind' is 'os.path', a module outside segwright.*add --own-modules, or own"):
        build(Own, {"likes": {"kind": "os.path"}}, "", own_modules=False)
