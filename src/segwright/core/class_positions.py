"""Where the pixels of each class are, so that one can be drawn at once. Axes: K classes, M pixels of one, n of all."""

from dataclasses import dataclass

import numpy as np

from segwright.core.errors import ShapeError


@dataclass(frozen=True, eq=False)
class ClassPositions:
    """The flat indices of the pixels of each class, `order` (n,), class after class; class k begins at `starts[k]`.

    `order` is int32, or int64 where the grid has 2**31 pixels or more; `starts` is int64 (K + 1,).
    """

    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of_map(cls, class_map: np.ndarray, num_classes: int) -> "ClassPositions":
        """The positions in a class map int32 (*S) of values 0..K-1 and VOID (-1), which has no positions.

        Raises:
            ShapeError: the map holds other values.
        """
        from segwright.core import segment_kernels

        flat = np.ascontiguousarray(class_map, dtype=np.int32).reshape(-1)
        counts = np.zeros(num_classes, dtype=np.int64)
        if not segment_kernels.class_counts(flat, counts):
            raise ShapeError(
                f"the class map holds {class_map.min()}..{class_map.max()}, but there are {num_classes} classes; "
                f"0..{num_classes - 1} and -1 for void are what it may hold"
            )
        starts = np.concatenate([[0], np.cumsum(counts)])
        order = np.empty(starts[-1], dtype=np.int32 if flat.size < 2**31 else np.int64)
        segment_kernels.positions(flat, starts.copy(), order)
        return cls(order, starts)

    def of(self, k: int) -> np.ndarray:
        """The flat indices of the pixels of class k, rising, (M,): a view, which costs nothing.

        Raises:
            ShapeError: there is no class k.
        """
        if not 0 <= k < len(self.starts) - 1:
            raise ShapeError(f"class {k} was asked for, but there are {len(self.starts) - 1} classes; give a number from 0 on")
        return self.order[self.starts[k] : self.starts[k + 1]]

    def counts(self) -> np.ndarray:
        """The number of pixels of each class, int64 (K,)."""
        return np.diff(self.starts)
