import logging
from concurrent.futures import ThreadPoolExecutor

from segwright.core.warn_once import warn_once

log = logging.getLogger("segwright.test_warn_once")


def test_each_cause_is_named_once_by_all_threads(caplog):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: warn_once(log, "%s: is odd", f"folder {number % 2}"), range(20)))
    assert sorted(caplog.messages) == ["folder 0: is odd", "folder 1: is odd"]
    warn_once(log, "%s: is even", "folder 0")
    assert caplog.messages[-1] == "folder 0: is even"
