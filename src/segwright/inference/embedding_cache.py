"""What promptable networks made of images, kept on disk, so that an image is encoded once and not once for each command.

Everything in it can be removed at any time; it is made again when it is missed. Axes: E channels, h, w sides of an embedding.
"""

import hashlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from segwright.core.atomic_files import replace_file
from segwright.core.cache_folder import cache_folder
from segwright.core.errors import OutputError

log = logging.getLogger(__name__)

MAX_BYTES = 2 * 2**30  # of all embeddings together: 512 of Segment Anything's, of 4 MB each
SUFFIX = ".safetensors"


def _folder() -> Path:
    return cache_folder() / "embeddings"


@dataclass(frozen=True)
class EmbeddingCache:
    """Embeddings in a folder, each under the digests of its network and of its image; those used longest ago go first."""

    folder: Path = field(default_factory=_folder)
    max_bytes: int = MAX_BYTES

    def recall(self, network: str, image: str) -> Tensor | None:
        """The embedding (1, E, h, w) of an image by a network, each named by its digest; None if it is not there."""
        path = self._path(network, image)
        try:
            embedding = load(path.read_bytes())["embedding"]
            os.utime(path)  # used now
        except (OSError, SafetensorError, KeyError):
            return None
        return embedding

    def remember(self, network: str, image: str, embedding: Tensor) -> None:
        """Keep an embedding; where nothing can be written, nothing is kept, which only costs time."""
        path = self._path(network, image)
        try:
            replace_file(path, save({"embedding": embedding.cpu().contiguous()}))
        except OutputError as error:
            log.info("the embedding is not kept: %s", error)
            return
        self._prune(keep=path)

    def _path(self, network: str, image: str) -> Path:
        return self.folder / f"{network}-{image}{SUFFIX}"

    def _prune(self, keep: Path) -> None:
        """Remove the embeddings used longest ago, but not `keep`, until all together hold at most `max_bytes`."""
        sizes = {}
        for path in self.folder.glob(f"*{SUFFIX}"):
            try:
                status = path.stat()
            except OSError:  # another process tidies up too
                continue
            sizes[path] = status.st_mtime, status.st_size
        total = sum(size for _, size in sizes.values())
        for path in sorted(sizes, key=lambda path: sizes[path][0]):
            if total <= self.max_bytes:
                return
            if path != keep:
                total -= sizes[path][1]
                path.unlink(missing_ok=True)


def image_digest(image: np.ndarray) -> str:
    """32 hexadecimal digits that change with the values, the shape and the type of an image."""
    digest = hashlib.sha256(f"{image.dtype} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]
