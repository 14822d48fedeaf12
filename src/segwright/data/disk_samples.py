"""Samples on the network's grid that memory has no room for: decoded and resampled once, and read from disk part by part.

Each has a folder below that of the user's cache, called after the digest of what it was made from: so a later run, and another
fold, find it again. Everything in there can be removed at any time; it is made again when it is missed. Where there is no room,
samples are decoded each time that they are drawn, which only costs time.

Axes: C channels, P planes, K classes, B bands, n spatial axes, *S of the file, *M of the network's grid.
"""

import hashlib
import logging
import math
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np

from segwright.core import Sample, missing
from segwright.core.atomic_files import TEMPORARY
from segwright.core.cache_folder import cache_folder
from segwright.core.errors import FormatError
from segwright.core.warn_once import warn_once
from segwright.data.class_locations import ClassLocations
from segwright.data.stored_sample import StoredSample, headed
from segwright.transforms import channels, normalise, prepare, resize
from segwright.transforms.prepare import Preprocess

log = logging.getLogger(__name__)

MAX_BYTES = 100 << 30  # of all samples together: some 500 tomographies
FREE_SHARE = 0.1  # of the disk, which stays free for everyone else
KEPT_SECONDS = 24 * 3600  # after its last use a sample may go; in a run that uses it, it never does
BLOCK_BYTES = 128 << 10  # are decompressed together, in the processor's own memory
CHUNK_BYTES = 6 << 20
CHUNK_CROPS = 1.5  # times the side of a crop: a chunk that is much larger is read for its corner
CAREFUL = 5  # of 9: beyond, LZ4HC takes much longer and saves little
MAPPED: Literal["r"] | None = None if sys.platform == "win32" else "r"  # Windows removes no file that is mapped
IMAGE, PLANES, INDEX = "image.b2nd", "planes.b2nd", "index.npy"


def _folder() -> Path:
    return cache_folder() / "samples"


@dataclass(frozen=True)
class _DiskArray:
    """An array (C, *M) in a file, of which parts are read: `array[:, *window]`. Many threads may."""

    path: Path
    shape: tuple[int, ...]

    def __getitem__(self, part: Any, /) -> np.ndarray:
        """The values (C, *n) of a part, given by slices without steps.

        Raises:
            FormatError: the file is damaged, or gone.
        """
        try:
            return _opened(self.path)[part]
        except (OSError, RuntimeError, ValueError) as error:
            raise FormatError(
                f"{self.path}, where the sample lies prepared, cannot be read ({error}); remove the folder {self.path.parent}, "
                "which is made again, and go on with the run"
            ) from error


@dataclass(eq=False)
class DiskSamples:
    """Samples in a folder, for crops of one shape; those used longest ago go first, when they are too many."""

    crop: tuple[int, ...]
    folder: Path = field(default_factory=_folder)
    is_full: bool = False

    def stored(self, sample: Sample, preprocess: Preprocess) -> StoredSample:
        """A sample as `preprocess` resamples it, on disk, where it may lie already; in memory where there is no room.

        Raises:
            UsageError: as `preprocess.resampled` does.
        """
        entry = self.folder / _digest(sample, preprocess)
        if (found := _found(entry, sample, preprocess)) is not None:
            return found
        shutil.rmtree(entry, ignore_errors=True)  # what is there is damaged
        prepared = preprocess.resampled(sample)
        if not self.is_full and len(self.crop) == len(prepared.grid.shape):  # else no crop can be made of it
            try:
                self._make_room(prepared)
                self._write(entry, prepared)
            except (OSError, RuntimeError) as error:  # blosc2 raises the latter
                self._give_up(error)
        return _found(entry, sample, preprocess) or StoredSample.of(prepared)

    def _give_up(self, error: Exception) -> None:
        self.is_full = True
        warn_once(
            log,
            "samples that memory does not hold are decoded anew for each crop, which is slow, as no more are kept in %s (%s); "
            "free space there, or set XDG_CACHE_HOME to a folder on a larger disk",
            *(self.folder, getattr(error, "strerror", None) or error),
        )

    def _make_room(self, prepared: Sample) -> None:
        """Remove what nobody has used for long, as far as the sample needs its place.

        Raises:
            OSError: there is too little room even so.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        size = prepared.image.nbytes + (0 if prepared.truth is None else prepared.truth.planes.nbytes)
        used = {path: _used(path) for path in self.folder.iterdir()}
        total, now = sum(taken for _, taken in used.values()), time.time()
        for path in sorted(used, key=lambda path: used[path][0]):
            is_old, is_unfinished = now - used[path][0] > KEPT_SECONDS, TEMPORARY.fullmatch(path.name) is not None
            if is_old and (is_unfinished or self._lacks(size, total)):
                total -= used[path][1]
                shutil.rmtree(path, ignore_errors=True)
        if lack := self._lacks(size, total):
            raise OSError(lack)

    def _lacks(self, size: int, total: int) -> str:
        """What there is too little of for a sample beside all others of `total` bytes; "" where there is room."""
        disk = shutil.disk_usage(self.folder)
        if disk.free - size < FREE_SHARE * disk.total:
            return f"of the disk, {FREE_SHARE:.0%} stay free"
        return f"{MAX_BYTES >> 30} GiB at most" if total + size > MAX_BYTES else ""

    def _write(self, entry: Path, prepared: Sample) -> None:
        """Put a sample into its folder, which is there when all of it is written.

        Raises:
            OSError: that fails; nothing is left behind.
            RuntimeError: likewise.
        """
        unfinished = self.folder / f".{entry.name}.{uuid4().hex}"
        try:
            unfinished.mkdir(mode=0o700)  # it may be a patient's
            self._write_array(unfinished / IMAGE, prepared.image)
            if prepared.truth is not None:
                self._write_array(unfinished / PLANES, prepared.truth.planes)
                np.save(unfinished / INDEX, ClassLocations.of(prepared.truth).ends)
            for file in unfinished.iterdir():
                _settle(file)
            unfinished.rename(entry)
        except OSError:
            if not entry.is_dir():  # else another process was faster
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _write_array(self, path: Path, values: np.ndarray) -> None:
        import blosc2  # takes a third of a second

        chunks, blocks = layout_for(values.shape[1:], values.itemsize, self.crop)
        settings = blosc2.CParams(codec=blosc2.Codec.LZ4HC, clevel=CAREFUL, nthreads=1)
        values = np.ascontiguousarray(values)
        blosc2.asarray(values, urlpath=str(path), mode="w", chunks=(1, *chunks), blocks=(1, *blocks), cparams=settings)


def layout_for(shape: tuple[int, ...], item_bytes: int, crop: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes (n,) of the chunks, and of the blocks in them, of an image *M of which crops are read.

    A block is a crop whose longest side is halved until it is small enough; a chunk is as many blocks as it may hold.
    """
    block = [min(side, part) for side, part in zip(shape, crop, strict=True)]
    while math.prod(block) * item_bytes > BLOCK_BYTES:
        longest = block.index(max(block))
        block[longest] = -(-block[longest] // 2)
    chunk, may_grow = list(block), set(range(len(shape)))
    while may_grow:
        axis = min(may_grow, key=lambda axis: (chunk[axis] / crop[axis], axis))
        wider = [side + block[axis] * (other == axis) for other, side in enumerate(chunk)]
        is_small = math.prod(wider) * item_bytes <= CHUNK_BYTES
        if is_small and wider[axis] <= min(CHUNK_CROPS * crop[axis], shape[axis]):
            chunk = wider
        else:
            may_grow.remove(axis)
    return tuple(chunk), tuple(block)


def _found(entry: Path, sample: Sample, preprocess: Preprocess) -> StoredSample | None:
    """The sample that lies in a folder; None where there is none, or a damaged one."""
    shape = preprocess.shape_of(sample.grid, sample.key)
    grid = sample.grid if shape == sample.grid.shape else resize.resize_grid(sample.grid, shape)
    try:
        os.utime(entry)  # used now
        image = _opened(entry / IMAGE)
        head = headed(sample, image.dtype, grid)
        if image.shape != (preprocess.all_channels, *shape):
            return None
        if head.truth is None:
            return StoredSample(head, _DiskArray(entry / IMAGE, image.shape), folder=entry)
        planes = _opened(entry / PLANES).shape
        index = ClassLocations(np.load(entry / INDEX, mmap_mode=MAPPED), shape)
        if planes[1:] != shape or len(index.ends) != len(head.truth.classes):
            return None
    except (OSError, RuntimeError, ValueError, EOFError):  # not there, or cut off
        return None
    return StoredSample(head, _DiskArray(entry / IMAGE, image.shape), _DiskArray(entry / PLANES, planes), entry, index)


def _opened(path: Path) -> Any:
    """An array of blosc2 in a file. Each reader has its own: a shared one would let threads wait for each other."""
    import blosc2

    return blosc2.open(str(path), mode="r", mmap_mode=MAPPED, dparams=blosc2.DParams(nthreads=1))


def _settle(file: Path) -> None:
    """Wait until a file lies on the disk: after a power cut there would else be holes in it under its final name."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def _used(path: Path) -> tuple[float, int]:
    """When a sample was used last, in seconds, and its bytes; (0, 0) where another process has just removed it."""
    try:
        return path.stat().st_mtime, sum(file.stat().st_size for file in path.iterdir())
    except OSError:
        return 0.0, 0


def _digest(sample: Sample, preprocess: Preprocess) -> str:
    """32 hexadecimal digits that change with a sample, the way of preparing it, and the code for that."""
    truth = sample.truth
    digest = hashlib.sha256(repr((preparing_code(), preprocess, sample.grid.shape, sample.grid.spacing_mm)).encode())
    arrays = [sample.image]
    if truth is not None:
        digest.update(f"{len(truth.classes)}".encode())
        arrays += [truth.planes, truth.class_ids]
    for values in arrays:
        digest.update(f"{values.dtype.str} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:32]


@cache
def preparing_code() -> str:
    """The digest of what resamples."""
    digest = hashlib.sha256()
    for module in (channels, missing, normalise, prepare, resize):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
