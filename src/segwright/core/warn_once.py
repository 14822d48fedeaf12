"""Warnings that are given once, however many files and threads meet their cause."""

import logging
from threading import Lock

_SAID: set[tuple[object, ...]] = set()
_LOCK = Lock()


def warn_once(log: logging.Logger, text: str, *arguments: object) -> None:
    """Give a warning, unless the same was given with the same arguments before."""
    with _LOCK:
        is_new = (text, *arguments) not in _SAID
        _SAID.add((text, *arguments))
    if is_new:
        log.warning(text, *arguments)
