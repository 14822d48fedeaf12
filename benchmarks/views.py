"""Views of 100 objects: boxes, areas, masks and the like of a Segmentation, against the plain numpy that is obvious.

    python benchmarks/views.py

Objects are boxes of 40 to 500 pixels at random places of 1080 x 1920: apart, where the later covers the earlier, or
overlapping, in as many planes as it takes. Both sides give equal arrays, which is checked. Axes: N objects, P planes, (H, W).
"""

import time
from collections.abc import Callable

import numpy as np

from segwright.core import Classes, Segmentation

COUNT, SHAPE = 100, (1080, 1920)
SIDES = (40, 500)  # pixels: of persons and cars in a street scene
CLASSES = Classes.of([f"class_{k}" for k in range(19)])
REPEATS = 7


def main() -> None:
    """Print a table of milliseconds."""
    print("| objects | view | ms | plain numpy ms | ratio |")
    print("|---|---|--:|--:|--:|")
    overlapping = boxes_at_random(np.random.default_rng(0))
    apart = overlapping & ~(np.cumsum(overlapping[::-1], axis=0, dtype=np.uint8)[::-1] > overlapping)
    for name, masks in (("apart", apart), ("overlapping", overlapping)):
        class_ids = np.arange(COUNT) % len(CLASSES)
        given = Segmentation.instances(masks, class_ids, classes=CLASSES)
        class_map = given.class_map()
        views: dict[str, tuple[Callable, Callable]] = {
            "boxes_xyxy()": (given.boxes_xyxy, lambda given=given: slow_boxes(given)),
            "areas()": (given.areas, lambda given=given: slow_areas(given)),
            "masks()": (given.masks, lambda given=given: slow_masks(given)),
            "class_map()": (given.class_map, lambda given=given: slow_class_map(given)),
            "instances(masks)": (
                lambda masks=masks, ids=class_ids: Segmentation.instances(masks, ids, classes=CLASSES).planes,
                lambda masks=masks: slow_instances(masks),
            ),
            "semantic(class_map)": (
                lambda class_map=class_map: Segmentation.semantic(class_map, CLASSES).class_map(),
                lambda class_map=class_map: slow_semantic(class_map),
            ),
        }
        for view, (ours, plain) in views.items():
            np.testing.assert_array_equal(ours(), plain())
            fast, slow = milliseconds(ours), milliseconds(plain, repeats=3)
            depth = f"{len(given.planes)} plane{'s' * (len(given.planes) > 1)}"
            print(f"| {name}, {depth} | `{view}` | {fast:.1f} | {slow:.0f} | {slow / fast:.0f} |", flush=True)


def milliseconds(work: Callable, repeats: int = REPEATS) -> float:
    """The median time of a piece of work."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def boxes_at_random(generator: np.random.Generator) -> np.ndarray:
    """Bool masks (N, H, W) of boxes."""
    masks = np.zeros((COUNT, *SHAPE), bool)
    for mask in masks:
        height, width = generator.integers(*SIDES, 2)
        top, left = generator.integers(0, SHAPE[0] - height), generator.integers(0, SHAPE[1] - width)
        mask[top : top + height, left : left + width] = True
    return masks


def slow_boxes(given: Segmentation) -> np.ndarray:
    """Boxes by a search in the mask of each object."""
    boxes = np.zeros((len(given), 4), np.float32)
    for index, mask in enumerate(slow_masks(given)):
        rows, columns = np.nonzero(mask)
        if len(rows):
            boxes[index] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return boxes


def slow_areas(given: Segmentation) -> np.ndarray:
    """Areas by a count of all labels."""
    return np.bincount(np.maximum(given.planes, 0).ravel(), minlength=len(given) + 1)[1:]


def slow_masks(given: Segmentation) -> np.ndarray:
    """Masks by a comparison of all planes with each number."""
    return np.stack([(given.planes == index + 1).any(axis=0) for index in range(len(given))])


def slow_class_map(given: Segmentation) -> np.ndarray:
    """Classes by a table, plane after plane."""
    class_of = np.concatenate([[-1, -1], given.class_ids]).astype(np.int32)
    result = class_of[given.planes[0] + 1]
    for plane in given.planes[1:]:
        result = np.where(plane > 0, class_of[plane + 1], result)
    return result


def slow_instances(masks: np.ndarray) -> np.ndarray:
    """Planes by trying each plane for each mask."""
    planes = np.zeros((1, *masks.shape[1:]), np.int32)
    for index, mask in enumerate(masks):
        free = next((plane for plane in planes if not plane[mask].any()), None)
        if free is None:
            planes = np.concatenate([planes, np.zeros_like(planes[:1])])
            free = planes[-1]
        free[mask] = index + 1
    return planes


def slow_semantic(class_map: np.ndarray) -> np.ndarray:
    """A class map through segment numbers and back, by tables."""
    raised = class_map.astype(np.int64) + 1
    present = np.flatnonzero(np.bincount(raised.ravel())[1:])
    segment_of = np.full(len(CLASSES) + 1, -1, np.int32)
    segment_of[present + 1] = np.arange(1, len(present) + 1)
    return np.concatenate([[-1, -1], present]).astype(np.int32)[segment_of[raised] + 1]


if __name__ == "__main__":
    main()
