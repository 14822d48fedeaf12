"""Random truths and predictions that look like the real ones. Axes: N objects, *S spatial axes, (H, W) or (D, H, W)."""

from typing import Any

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter, zoom

Generator = np.random.Generator


def outline(centre: np.ndarray, radius: float, bumps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask uint8 (H, W) of a closed curve around a centre (x, y), its radius varied by `bumps` per angle."""
    angle = np.linspace(0, 2 * np.pi, len(bumps), endpoint=False)
    ring = centre + (radius * bumps)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return cv2.fillPoly(np.zeros(shape, np.uint8), [np.rint(ring).astype(np.int32)], 1)


def bumps(generator: Generator, roughness: float) -> np.ndarray:
    """Factors around 1 for 40 angles, without a jump where the curve closes."""
    waves = generator.standard_normal(5) / np.arange(1, 6)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    phases = generator.uniform(0, 2 * np.pi, 5)
    return np.maximum(1 + roughness * sum(w * np.sin((k + 1) * angle + phases[k]) for k, w in enumerate(waves)), 0.2)


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a mask."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


class Objects:
    """Makes the annotations and results, in COCO's form, of images full of objects."""

    def __init__(self, generator: Generator, shape: tuple[int, int], num_classes: int):
        self.generator, self.shape, self.num_classes = generator, shape, num_classes

    def annotation(self, image: int, mask: np.ndarray, category: int, **more: Any) -> dict[str, Any]:
        """One object."""
        x, y, width, height = cv2.boundingRect(mask)
        box = [float(x), float(y), float(width), float(height)]
        return {"image_id": image, "category_id": category, "segmentation": encoded(mask), "bbox": box, **more}

    def detection(
        self, image: int, centre: np.ndarray, radius: float, shape: np.ndarray, category: int, quality: float
    ) -> dict:
        """What a detector says of an object: moved and deformed a little, with a score of three digits, so that some tie."""
        generator = self.generator
        off = (1 - quality) * radius
        changed = shape * (1 + (1 - quality) * 0.3 * generator.standard_normal(len(shape)))
        mask = outline(
            centre + off * generator.standard_normal(2), radius * (1 + 0.1 * generator.standard_normal()), changed, self.shape
        )
        score = float(np.round(np.clip(quality + 0.2 * generator.standard_normal(), 0.01, 0.999), 3))
        return self.annotation(image, mask, category, score=score)

    def image(self, image: int, centres: np.ndarray, radii: np.ndarray, detections: int, crowds: float) -> tuple[list, list]:
        """Truth and results of an image: each object found once or more, some as another class, and some found nowhere."""
        generator, truths, results = self.generator, [], []
        shapes = [bumps(generator, 0.25) for _ in radii]
        categories = 1 + (generator.random(len(radii)) ** 2 * self.num_classes).astype(int)
        for centre, radius, shape, category in zip(centres, radii, shapes, categories.tolist(), strict=True):
            mask = outline(centre, radius, shape, self.shape)
            is_crowd = int(generator.random() < crowds)
            truths.append(self.annotation(image, mask, category, iscrowd=is_crowd, area=int(mask.sum())))
        for index in range(detections):
            of = index if index < len(radii) else int(generator.integers(len(radii)))
            category = int(categories[of]) if generator.random() < 0.85 else int(generator.integers(1, self.num_classes + 1))
            quality = float(np.clip(generator.normal(0.85 if index < len(radii) else 0.4, 0.1), 0, 1))
            results.append(self.detection(image, centres[of], radii[of], shapes[of], category, quality))
        return truths, [result for result in results if result["bbox"][2]]


def coco_set(images: list[dict], truths: list[dict], categories: int) -> dict[str, Any]:
    """COCO's data set of annotations."""
    for number, annotation in enumerate(truths, start=1):
        annotation["id"] = number
    return {
        "images": images,
        "annotations": truths,
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(categories)],
    }


def many_classes(images: int) -> dict[str, Any]:
    """COCO-like: 80 classes, images of 480 x 640 with 12 objects on average and 50 results each; some objects are crowds."""
    generator = np.random.default_rng(0)
    maker, truths, results, described = Objects(generator, (480, 640), 80), [], [], []
    for image in range(1, images + 1):
        count = int(generator.integers(5, 20))
        centres = generator.uniform(0, (640, 480), (count, 2))
        own, found = maker.image(image, centres, generator.lognormal(3.3, 0.7, count), 50, 0.02)
        truths += own
        results += found
        described.append({"id": image, "height": 480, "width": 640, "file_name": f"{image}.jpg"})
    return {"truth": coco_set(described, truths, 80), "results": results}


def nuclei(images: int) -> dict[str, Any]:
    """Microscopy-like: one class, images of 384 x 384 with 110 small round objects and about 121 results each."""
    generator = np.random.default_rng(1)
    maker, truths, results, described = Objects(generator, (384, 384), 1), [], [], []
    grid = np.stack(np.meshgrid(np.arange(11), np.arange(10)), axis=-1).reshape(-1, 2)  # 110 cells
    for image in range(1, images + 1):
        centres = (grid + 0.5 + generator.uniform(-0.2, 0.2, grid.shape)) * (384 / 11, 384 / 10)
        own, found = maker.image(image, centres, generator.uniform(7, 15, len(grid)), 120 + image % 4 // 1, 0.0)
        truths += own
        results += found
        described.append({"id": image, "height": 384, "width": 384, "file_name": f"{image}.png"})
    return {"truth": coco_set(described, truths, 1), "results": results}


def regions(generator: Generator, shape: tuple[int, ...], num_classes: int, coarse: int = 32) -> np.ndarray:
    """A class map uint8 (*S) of smooth regions."""
    small = [max(2, side // coarse) for side in shape]
    noise = np.stack([gaussian_filter(generator.standard_normal(small), 1.0) for _ in range(num_classes)])
    steps = [side / few for side, few in zip(shape, small, strict=True)]
    labels = zoom(noise.argmax(axis=0).astype(np.uint8), steps, order=0)
    return np.ascontiguousarray(labels[tuple(slice(side) for side in shape)])


def wobbled(generator: Generator, labels: np.ndarray, pixels: float) -> np.ndarray:
    """The map with its borders moved by a few pixels, smoothly; 2D."""
    height, width = labels.shape
    fields = [
        cv2.resize(
            generator.standard_normal((height // 32 + 2, width // 32 + 2)).astype(np.float32),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        for _ in range(2)
    ]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(
        labels.astype(np.float32),
        x + pixels * fields[0],
        y + pixels * fields[1],
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return moved.astype(labels.dtype)


def blob(generator: Generator, shape: tuple[int, ...], share: float, smooth: float) -> np.ndarray:
    """A bool mask (*S) of a few smooth parts that covers a share of the pixels."""
    noise = gaussian_filter(generator.standard_normal([max(4, int(side / smooth)) for side in shape]), 1.5)
    fine = zoom(noise, [side / few for side, few in zip(shape, noise.shape, strict=True)], order=1)
    return fine > np.quantile(fine, 1 - share)


def panoptic_pair(
    generator: Generator, shape: tuple[int, int], num_things: int, num_stuff: int, objects: int
) -> dict[str, Any]:
    """Ids and categories of the segments of a truth and of a prediction; id 0 is void, categories start at 1, things first."""
    stuff = regions(generator, shape, 6, coarse=64).astype(np.int64)
    names = generator.permutation(num_stuff)[:6] + num_things + 1
    truth, categories = stuff + 1, {int(n) + 1: int(names[n]) for n in range(6)}
    for number in range(objects):
        radius = generator.lognormal(np.log(min(shape) / 14), 0.5)
        centre = generator.uniform(0, shape[::-1])
        segment = 100 + 3 * number
        truth[outline(centre, radius, bumps(generator, 0.25), shape) > 0] = segment
        categories[segment] = int(generator.random() ** 2 * num_things) + 1
    guess = wobbled(generator, truth.astype(np.float32), 2.0).astype(np.int64)
    own = dict(categories)
    for segment in list(own):
        chance = generator.random()
        if chance < 0.1:
            guess[guess == segment] = 0
        elif chance < 0.2:
            own[segment] = int(generator.integers(1, num_things + 1)) if segment >= 100 else own[segment]
    truth[outline(generator.uniform(0, shape[::-1]), min(shape) / 10, bumps(generator, 0.25), shape) > 0] = 0
    crowd = next((segment for segment in categories if segment >= 100 and generator.random() < 0.05), None)
    return {
        "truth": truth.astype(np.uint32),
        "prediction": guess.astype(np.uint32),
        "true_categories": {s: c for s, c in categories.items() if (truth == s).any()},
        "categories": {s: c for s, c in own.items() if (guess == s).any()},
        "crowd": crowd,
    }
