"""The exception tree: what the command line relies on."""

import inspect

import pytest

from segwright.core import errors

ALL = [value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__]


@pytest.mark.parametrize("error", ALL)
def test_each_error_says_what_it_means_and_has_the_one_base(error):
    assert issubclass(error, errors.SegwrightError)
    assert inspect.getdoc(error)


def test_bad_use_and_failure_are_told_apart():
    """The command line exits with 2 for the first kind and with 1 for the second."""
    assert issubclass(errors.FormatError, errors.UsageError)
    assert issubclass(errors.MissingExtraError, errors.UsageError)
    assert not issubclass(errors.TrainingError, errors.UsageError)


def test_an_error_keeps_its_type_when_it_learns_what_was_worked_on():
    with pytest.raises(errors.FormatError, match="sample 'a': it is damaged"), errors.naming("sample 'a'"):
        raise errors.FormatError("it is damaged")
    with pytest.raises(errors.FormatError, match=r"^a.png is damaged$"), errors.naming("a.png"):
        raise errors.FormatError("a.png is damaged")
