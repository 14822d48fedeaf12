"""Samples that cannot be read, so that a person may train without them: which ones, and why."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from segwright.core import Dataset
from segwright.core.errors import SegwrightError, UsageError
from segwright.formats import open_dataset

THREADS = 4  # that read: decoders hold no lock, and each thread has one sample in memory

log = logging.getLogger(__name__)


def unreadable_keys(*paths: Path | str) -> tuple[str, ...]:
    """The keys of all samples of data sets that cannot be read, or have no truth to learn from; each is logged with the reason.

    Every sample is read for it.

    Raises:
        FormatError: as `open_dataset`.
        UsageError: no sample of a data set can be read.
    """
    found: list[str] = []
    for path in paths:
        data = open_dataset(path)
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                reasons = dict(zip(data.keys, pool.map(partial(_reason, data), data.keys), strict=True))
            finally:
                pool.shutdown(cancel_futures=True)  # of what is not begun, where a person stops it
        wrong = {key: reason for key, reason in reasons.items() if reason}
        if len(wrong) == len(data):
            key, reason = next(iter(wrong.items()))
            raise UsageError(
                f"none of the {len(data)} samples in {path} can be used, such as {key!r} ({reason}); look at the files with: "
                f"segwright inspect {path}"
            )
        for key, reason in wrong.items():
            log.warning("sample %r is left out: %s", key, reason)
        found += wrong
    return tuple(found)


def _reason(data: Dataset, key: str) -> str:
    """Why a sample cannot be learned from; "" where it can."""
    try:
        return "" if data.load(key).truth is not None else "it has no mask"
    except SegwrightError as error:
        return str(error)
