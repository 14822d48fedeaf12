"""The files of a folder of images and masks, also where `formats.pairing` refuses it: what lacks its partner or is empty."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from segwright.core.errors import FormatError
from segwright.formats.image_index import MASK_FOLDERS, images_below, safe_key
from segwright.formats.pairing import IMAGE_FOLDERS, partners_of, subfolders
from segwright.formats.volume import volumes_below


@dataclass(frozen=True)
class MaskFiles:
    """Image and mask of each key; images and masks without a partner by the key that they would have."""

    pairs: dict[str, tuple[Path, Path]]
    without_mask: dict[str, Path]
    without_image: dict[str, Path]


def scan(root: Path, drop: Collection[str] = (), *, are_volumes: bool = False) -> MaskFiles | None:
    """The files below a folder, images or volumes, paired as `formats.pairing` does, but for the keys to drop.

    None unless one folder has the images and one the masks, and each name is there once.
    """
    below = _volumes if are_volumes else images_below
    folders = [[folder for folder in subfolders(root, names) if below(folder)] for names in (IMAGE_FOLDERS, MASK_FOLDERS)]
    if [len(found) for found in folders] != [1, 1]:
        return None
    listings = [below(found[0]) for found in folders]
    images, masks = (dict(listing) for listing in listings)
    if len(images) < len(listings[0]) or len(masks) < len(listings[1]) or len({*map(safe_key, images)}) < len(images):
        return None
    partners = partners_of(images, masks)
    used = set(partners.values())
    return MaskFiles(
        {key: (images[stem], masks[name]) for stem, name in partners.items() if (key := safe_key(stem)) not in drop},
        {key: image for stem, image in images.items() if stem not in partners and (key := safe_key(stem)) not in drop},
        {key: mask for stem, mask in masks.items() if stem not in used and (key := safe_key(stem)) not in drop},
    )


def _volumes(folder: Path) -> list[tuple[str, Path]]:
    try:
        return [*volumes_below(folder).items()]
    except FormatError:  # two files of one name, which the reader tells
        return []
