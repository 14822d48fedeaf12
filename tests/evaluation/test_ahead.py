"""Reading ahead."""

import threading
import time

import pytest

from segwright.core.errors import FormatError
from segwright.evaluation.ahead import ahead


def test_values_come_in_the_order_of_keys_whatever_the_threads():
    def load(key):
        time.sleep(0.002 * (key % 3))
        return 10 * key

    for threads in (1, 3):
        assert list(ahead(load, range(8), count=4, threads=threads)) == [10 * key for key in range(8)]
    assert list(ahead(load, [])) == []


def test_no_more_is_read_than_was_allowed():
    read, is_read = [], threading.Semaphore(0)

    def load(key):
        read.append(key)
        is_read.release()
        return key

    values = ahead(load, range(9), count=2)
    assert next(values) == 0
    for _ in range(3):
        assert is_read.acquire(timeout=10)
    time.sleep(0.02)
    assert read == [0, 1, 2]
    values.close()
    assert read == [0, 1, 2]


def test_an_error_comes_at_its_key():
    def load(key):
        if key == 3:
            raise FormatError("3 is damaged")
        return key

    found = []
    with pytest.raises(FormatError, match="3 is damaged"):
        for value in ahead(load, range(9)):
            found.append(value)
    assert found == [0, 1, 2]
