"""What is done with the pieces of classes once each pixel has one: stray pieces go to the background, holes are filled.

Pieces are pixels of a class that touch, across corners too. nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z) keeps
the largest piece of a class where that helps on validation images. Axes: *S spatial axes.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segwright.core import Segmentation
from segwright.core.classes import background_of
from segwright.core.errors import SettingError
from segwright.metrics.connected_components import ALL_NEIGHBOURS, connected_components


@dataclass(frozen=True, kw_only=True)
class Postprocess:
    """Rules about classes, by their numbers; without any, segmentations stay as they are.

    `together` keeps the largest piece of all classes but the background taken as one, `largest` of each of these classes its
    largest piece. `min_pixels` has a number for each class, and smaller pieces of it go; there are none for (). What goes
    becomes background. Background that one of the classes `filled` encloses becomes that class.
    """

    together: bool = False
    largest: tuple[int, ...] = ()
    min_pixels: tuple[int, ...] = ()
    filled: tuple[int, ...] = ()

    def __call__(self, found: Segmentation) -> Segmentation:
        """A segmentation (*S) of classes after these rules; void stays void.

        Raises:
            SettingError: there is no background, no such class, or objects are told apart.
        """
        if self == Postprocess():
            return found
        background = self._checked(found)
        labels = found.class_map().copy()
        if self.together:
            _remove_small(labels, (labels >= 0) & (labels != background), background)
        for k in range(len(found.classes)):
            least = self.min_pixels[k] if self.min_pixels else 0
            if k in self.largest or least > 1:
                _remove_small(labels, labels == k, background, None if k in self.largest else least)
        for k in self.filled:
            labels[ndimage.binary_fill_holes(labels == k) & (labels == background)] = k
        return Segmentation.semantic(labels, found.classes)

    def _checked(self, found: Segmentation) -> int:
        """The number of the background.

        Raises:
            SettingError: as in a call.
        """
        background, count = background_of(found.classes), len(found.classes)
        if background is None or len(found.planes) > 1 or found.instance_ids.any():
            what = "objects are told apart here" if background is not None else "no class here is the background"
            raise SettingError(
                f"inference.postprocess moves pixels to the background, and {what}; set it to nothing with "
                "--set inference.postprocess={}"
            )
        wrong = [k for k in (*self.largest, *self.filled) if not 0 <= k < count or k == background]
        if wrong or len(self.min_pixels) not in (0, count) or (self.min_pixels and self.min_pixels[background]):
            raise SettingError(
                f"inference.postprocess has largest {list(self.largest)}, filled {list(self.filled)} and min_pixels "
                f"{list(self.min_pixels)}; give numbers of the {count} classes but that of the background, {background}, and "
                f"one of min_pixels for each class, 0 for the background"
            )
        return background


def _remove_small(labels: np.ndarray, mask: np.ndarray, background: int, least: int | None = None) -> None:
    """Make background of the pieces of a mask with less than so many pixels, or, without a number, of all but the largest."""
    if not mask.any():
        return
    pieces, count = connected_components(mask, ALL_NEIGHBOURS[mask.ndim])
    sizes = np.bincount(pieces.reshape(-1), minlength=count + 1)
    sizes[0] = 0  # what is not in the mask
    is_kept = sizes >= least if least is not None else np.arange(count + 1) == sizes.argmax()
    labels[mask & ~is_kept[pieces]] = background
