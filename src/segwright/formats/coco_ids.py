"""The numbers by which a file of COCO's calls its images and categories, for predictions that are to be compared with it.

The programs that score files of COCO's (pycocotools, panopticapi) pair images by `image_id` and classes by `category_id`; names
mean nothing to them. Predictions on the images of such a file therefore have to use its numbers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from segwright.core import Classes
from segwright.formats.coco_files import Name, is_panoptic, open_files


@dataclass(frozen=True)
class CocoIds:
    """`image_id` by the key of the sample, and `category_id` by the name of the class; who is not named gets a free number."""

    images: Mapping[str, Name] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)

    def of_images(self, keys: Iterable[str]) -> dict[str, Name]:
        """The number of each image, those that are not known from 1, or from the highest known, on."""
        return _numbered(keys, self.images)

    def of_classes(self, classes: Classes) -> list[int]:
        """The number of each class, those that are not known from 1, or from the highest known, on."""
        return [int(number) for number in _numbered(classes.names, self.categories).values()]


def ids_of(path: Path) -> CocoIds | None:
    """The numbers in a JSON file, None where it is no file of COCO's.

    Raises:
        FormatError: it looks like one, and is damaged.
    """
    kind = is_panoptic(path) if path.is_file() and path.suffix.lower() == ".json" else None
    if kind is None:
        return None
    filled = "file_name" if kind else "segmentation"
    opened = open_files(path, lambda file: is_panoptic(file) is kind, "COCO's annotations", filled=filled)
    images = {key: opened.parts[number].pictures[index].id for key, (number, index) in opened.places.items()}
    return CocoIds(images, {opened.classes.names[k]: number for number, k in opened.class_of.items()})


def _numbered(names: Iterable[str], known: Mapping[str, Name]) -> dict[str, Name]:
    """The number of each name."""
    highest = max((number for number in known.values() if isinstance(number, int)), default=0)
    numbers: dict[str, Name] = {}
    for name in names:
        if name in known:
            numbers[name] = known[name]
        else:
            highest += 1
            numbers[name] = highest
    return numbers
