"""Reading ahead: what comes next is read in threads while the caller works on what came."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

AHEAD = 2  # samples in memory beside the one at work: one is ready, one is being read


def ahead(
    load: Callable[[Key], Value], keys: Iterable[Key], *, count: int = AHEAD, threads: int = 1
) -> Generator[Value, None, None]:
    """What `load` gives for each key, in their order; up to `count` are loaded before they are asked for.

    An error of `load` is raised where its value would have come, after all values before it.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Value]] = deque()
        try:
            for key in keys:
                waiting.append(pool.submit(load, key))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # the caller stopped, or one failed: the rest is not wanted
                future.cancel()
