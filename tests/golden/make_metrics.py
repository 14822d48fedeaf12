"""Makes tests/golden/metrics_*.json: small random cases and the scores that the authors' own programs give them.

    python tests/golden/make_metrics.py FOLDER

FOLDER holds checkouts that are not on PyPI, each under its name: panopticapi (github.com/cocodataset), davis2017-evaluation
(davisvideochallenge), boundary-iou-api (bowenc0221) and deeplab2 (google-research). Their commits are in PEERS.
davis2017 needs scikit-image, boundary-iou-api OpenCV and pycocotools. Maps are stored as rows of numbers. Segwright, which must
be installed, writes the files that panopticapi reads (`panoptic_files`).
"""

import contextlib
import importlib.util
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.ndimage import gaussian_filter, shift

HERE = Path(__file__).parent
PEERS = {
    "panopticapi": "cocodataset/panopticapi 7bb4655548f98f3fedc07bf37e9040a992b054b0",
    "davis2017-evaluation": "davisvideochallenge/davis2017-evaluation ac7c43fca936f9722837b7fbd337d284ba37004b",
    "boundary-iou-api": "bowenc0221/boundary-iou-api 37d25586a677b043ed585f10e5c42d4e80176ea9",
    "deeplab2": "google-research/deeplab2 64bc1c1a6505b6cd1779b65f9127180840b8a4fa",
}
SHAPE = (16, 22)
THINGS, STUFF = (1, 2, 3), (4, 5, 6)  # category ids; 3 and 6 occur nowhere in some of the sets
CATEGORIES = {k: {"id": k, "isthing": int(k in THINGS)} for k in (*THINGS, *STUFF)}


def load(folder: Path, peer: str, file: str) -> ModuleType:
    """A module of a checkout, by its file; the checkout's root is where it looks for others."""
    sys.path.insert(0, str(folder / peer))
    spec = importlib.util.spec_from_file_location(Path(file).stem + "_of_peer", folder / peer / file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where its worker processes look for it
    spec.loader.exec_module(module)
    sys.path.pop(0)
    return module


def write(name: str, peer: str, content: dict) -> None:
    """One golden file."""
    text = json.dumps({"made_by": PEERS[peer], **content}, separators=(",", ":"))
    (HERE / f"metrics_{name}.json").write_text(text + "\n")


def rows(array: np.ndarray) -> list:
    """An array as lists of whole numbers."""
    return array.astype(int).tolist()


# Panoptic maps


def blob(generator: np.random.Generator, share: float) -> np.ndarray:
    """A bool mask that covers a share of the pixels, in a few parts."""
    noise = gaussian_filter(generator.standard_normal(SHAPE), 2.0)
    return noise > np.quantile(noise, 1 - share)


def random_panoptic(generator: np.random.Generator) -> tuple[np.ndarray, dict[int, int]]:
    """A map of segment ids, 0 for void, and the category of each: stuff below, objects on top, some void."""
    categories = {}
    parts = np.argmax([gaussian_filter(generator.standard_normal(SHAPE), 3.0) for _ in STUFF], axis=0)
    ids = np.zeros(SHAPE, np.int64)
    for number, category in enumerate(STUFF[: generator.integers(1, 4)]):
        segment = 1000 + 7 * category
        ids[parts == number] = segment
        categories[segment] = category
    for number in range(generator.integers(1, 6)):
        segment = int(generator.integers(1, 9)) * 65536 + 300 + number  # ids that need all three bytes of a colour
        ids[blob(generator, 0.12)] = segment
        categories[segment] = int(generator.choice(THINGS[: generator.integers(1, 4)]))
    ids[blob(generator, 0.08)] = 0
    return ids, {segment: category for segment, category in categories.items() if (ids == segment).any()}


def perturbed(generator: np.random.Generator, ids: np.ndarray, categories: dict) -> tuple[np.ndarray, dict[int, int]]:
    """A prediction made of a truth: moved, some segments lost or of another category, some new."""
    moved = shift(ids, generator.integers(-1, 2, 2), order=0, mode="nearest")
    known = dict(categories)
    for segment in list(known):
        if generator.random() < 0.15:
            moved[moved == segment] = 0
        elif generator.random() < 0.15:
            known[segment] = int(generator.choice(THINGS if known[segment] in THINGS else STUFF))
    if generator.random() < 0.5:
        moved[blob(generator, 0.05)], known[77] = 77, 2
    return moved, {segment: category for segment, category in known.items() if (moved == segment).any()}


def noisy(generator: np.random.Generator, ids: np.ndarray, categories: dict) -> tuple[np.ndarray, dict[int, int]]:
    """A prediction with pixels taken from elsewhere in the truth, up to half of them."""
    is_wrong = generator.random(SHAPE) < generator.uniform(0, 0.5)
    guess = np.where(is_wrong, generator.permutation(ids.ravel()).reshape(SHAPE), ids)
    return guess, {segment: category for segment, category in categories.items() if (guess == segment).any()}


def described(ids: np.ndarray, categories: dict[int, int], crowds: Sequence[int] = ()) -> list[dict]:
    """COCO's list of segments."""
    return [
        {"id": segment, "category_id": category, "iscrowd": int(segment in crowds), "area": int((ids == segment).sum())}
        for segment, category in categories.items()
    ]


def panoptic_images(generator: np.random.Generator, kind: str, count: int) -> list[dict]:
    """Images of one kind; at most one crowd of a category in an image, as panopticapi knows no more."""
    images = []
    for number in range(count):
        truth, true_categories = random_panoptic(generator)
        guess, categories = perturbed(generator, truth, true_categories)
        if kind == "noisy":
            guess, categories = noisy(generator, truth, true_categories)
        crowds = {category: segment for segment, category in true_categories.items() if category in THINGS}
        crowds = [segment for segment in crowds.values() if generator.random() < 0.3]
        if number == count - 1:  # nothing was found
            guess, categories = np.zeros_like(truth), {}
        images.append(
            {
                "truth": rows(truth),
                "truth_segments": described(truth, true_categories, crowds),
                "prediction": rows(guess),
                "prediction_segments": described(guess, categories),
            }
        )
    return images


def counted(peer: ModuleType, images: Sequence[dict]) -> Any:
    """What panopticapi counts on images, whose maps are handed over instead of read."""
    maps = {f"t{n}": np.array(image["truth"]) for n, image in enumerate(images)}
    maps |= {f"p{n}": np.array(image["prediction"]) for n, image in enumerate(images)}
    pairs = [
        (
            {"file_name": f"t{n}", "image_id": n, "segments_info": [dict(each) for each in image["truth_segments"]]},
            {"file_name": f"p{n}", "image_id": n, "segments_info": [dict(each) for each in image["prediction_segments"]]},
        )
        for n, image in enumerate(images)
    ]
    opened = SimpleNamespace(open=lambda path: maps[Path(path).name])
    with patch.multiple(peer, Image=opened, rgb2id=lambda ids: ids), contextlib.redirect_stdout(io.StringIO()):
        return peer.pq_compute_single_core(0, pairs, "", "", CATEGORIES)


def averages(stat: Any) -> dict:
    """PQ, SQ and RQ of all categories, things and stuff, and per category with its counts."""
    results = {}
    for name, is_thing in (("All", None), ("Things", True), ("Stuff", False)):
        results[name], per_class = stat.pq_average(CATEGORIES, is_thing)
        if is_thing is None:
            results["per_class"] = per_class
    for k, each in results["per_class"].items():
        counts = stat.pq_per_cat[k]
        each |= {"tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "iou": float(counts.iou)}
    return results


def panoptic(folder: Path) -> None:
    """PQ, SQ and RQ of two sets by panopticapi, whose images are handed over instead of read."""
    peer = load(folder, "panopticapi", "panopticapi/evaluation.py")
    generator, sets = np.random.default_rng(1), {}
    for kind in ("noisy", "perturbed"):
        images = panoptic_images(generator, kind, 12)
        stat = counted(peer, images)
        sets[kind] = {"images": images, "results": averages(stat)}
    write("panoptic_quality", "panopticapi", {"categories": list(CATEGORIES.values()), "sets": sets})


def panoptic_files(folder: Path) -> None:
    """PQ by panopticapi's own program on files that our writers made: of truths with stuff and crowds in several parts, and of
    predictions whose classes stand in another order, and which are numbered as the truth is."""
    peer = load(folder, "panopticapi", "panopticapi/evaluation.py")
    generator, images = np.random.default_rng(7), []
    for number in range(10):
        truth, categories = random_panoptic(generator)
        guess, own = perturbed(generator, truth, categories)
        crowds = [segment for segment, category in categories.items() if category in THINGS and generator.random() < 0.3]
        images.append(
            {
                "key": f"image_{number}",
                "image_id": int(900 - 37 * number + generator.integers(9)),  # neither in the order of the keys nor without gaps
                "truth": in_parts(generator, truth, categories, crowds),
                "prediction": in_parts(generator, guess, own, ()),
            }
        )
    category_ids = [int(each) for each in generator.permutation(90)[: len(CATEGORIES)] + 1]
    content = {"category_ids": category_ids, "things": [k in THINGS for k in CATEGORIES], "images": images}
    with tempfile.TemporaryDirectory() as place:
        files = panoptic_file_pair(content, Path(place))
        with contextlib.redirect_stdout(io.StringIO()):
            results = peer.pq_compute(*map(str, files))
    write("panoptic_files", "panopticapi", {**content, "results": results})


def in_parts(generator: np.random.Generator, ids: np.ndarray, categories: dict, crowds: Sequence[int]) -> dict:
    """A Segmentation of a map of ids, as lists: stuff and crowds in two segments, at random, things with numbers."""
    segments, class_ids, numbers = np.full(SHAPE, -1), [], []
    for number, (segment, category) in enumerate(categories.items(), start=1):
        is_one = category in THINGS and segment not in crowds
        part = np.zeros(SHAPE, int) if is_one else generator.integers(0, 2, SHAPE)
        for each in (0, 1):
            inside = (ids == segment) & (part == each)
            if inside.any():
                class_ids.append(category - 1)
                numbers.append(number if is_one else 0)
                segments[inside] = len(class_ids)
    return {"segments": rows(segments), "class_ids": class_ids, "instance_ids": numbers}


def panoptic_file_pair(content: dict, folder: Path) -> tuple[Path, Path]:
    """The JSON files of truths and predictions, written by coco_panoptic, with the classes in two orders."""
    from segwright.core import Classes, Sample, Segmentation
    from segwright.formats import coco_panoptic
    from segwright.formats.coco_ids import CocoIds, ids_of

    names = [f"class_{k}" for k in range(len(content["things"]))]
    classes = Classes.of(names, is_thing=content["things"])
    turned = Classes.of(names[::-1], is_thing=content["things"][::-1])
    images = {image["key"]: image for image in content["images"]}

    def sample(key: str, side: str, classes: Classes) -> Sample:
        given = images[key][side]
        class_ids = [classes.names.index(names[k]) for k in given["class_ids"]]
        truth = Segmentation.panoptic(np.array(given["segments"]), class_ids, given["instance_ids"], classes=classes)
        return Sample.of(key, np.zeros((0, *truth.shape), np.uint8), truth)

    ids = CocoIds(
        {key: image["image_id"] for key, image in images.items()}, dict(zip(names, content["category_ids"], strict=True))
    )
    coco_panoptic.write(folder / "truth", [sample(key, "truth", classes) for key in images], ids=ids)
    truth = folder / "truth" / "annotations" / "panoptic.json"
    order = sorted(images, reverse=True)
    coco_panoptic.write(folder / "found", [sample(key, "prediction", turned) for key in order], ids=ids_of(truth))
    return truth, folder / "found" / "annotations" / "panoptic.json"


# Videos


def video(generator: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray, dict, dict]:
    """Maps (T, H, W) of a truth and a prediction with stable segment ids, and their categories; 0 is void."""
    truth, categories = random_panoptic(generator)
    guess, own = perturbed(generator, truth, categories)
    step = generator.integers(-1, 2, 2)
    truths = np.stack([shift(truth, step * t, order=0, mode="nearest") for t in range(frames)])
    guesses = np.stack([shift(guess, step * t, order=0, mode="nearest") for t in range(frames)])
    objects = [segment for segment, category in own.items() if category in THINGS]
    if objects:  # one object is lost half way and found under another number
        late = guesses[frames // 2 :]
        late[late == objects[0]] = 99
        own[99] = own[objects[0]]
    return truths, guesses, categories, own


def video_panoptic(folder: Path) -> None:
    """VPQ of windows of 1 to 4 frames: what panopticapi says of the frames of each window, joined to one image."""
    peer = load(folder, "panopticapi", "panopticapi/evaluation.py")
    generator, videos = np.random.default_rng(2), []
    for _ in range(3):
        truths, guesses, categories, own = video(generator, 6)
        videos.append(
            [
                {
                    "truth": rows(truth),
                    "truth_segments": [each for each in described(truth, categories) if each["area"]],
                    "prediction": rows(guess),
                    "prediction_segments": [each for each in described(guess, own) if each["area"]],
                }
                for truth, guess in zip(truths, guesses, strict=True)
            ]
        )
    results = {}
    for window in (1, 2, 3, 4):
        starts = [(frames, n) for frames in videos for n in range(len(frames) - window + 1)]
        results[window] = averages(counted(peer, [joined(frames[n : n + window]) for frames, n in starts]))
    write("video_panoptic", "panopticapi", {"categories": list(CATEGORIES.values()), "videos": videos, "results": results})


def joined(frames: Sequence[dict]) -> dict:
    """Frames as one image, one below the other; a segment in several of them is one."""
    image: dict = {}
    for side in ("truth", "prediction"):
        segments: dict[int, dict] = {}
        for segment in (each for frame in frames for each in frame[f"{side}_segments"]):
            known = segments.setdefault(segment["id"], segment | {"area": 0})
            known["area"] += segment["area"]
        image[side] = [row for frame in frames for row in frame[side]]
        image[f"{side}_segments"] = list(segments.values())
    return image


def tracking(folder: Path) -> None:
    """STQ of videos with and without void, by its authors.

    Labels are category * 2**5 + object; object 0 is stuff, or a crowd of a thing class.
    """
    peer = load(folder, "deeplab2", "evaluation/numpy/segmentation_and_tracking_quality.py")
    generator, sets, bits, ignored = np.random.default_rng(3), {}, 5, 15
    for kind in ("no void", "void"):
        metric, videos = peer.STQuality(7, list(THINGS), ignored, bits, 2**24), []
        for number in range(3):
            truth, guess = tracking_labels(generator, bits, with_crowd=number == 1)
            guess[guess < 0] = 4 << bits  # a prediction names each pixel
            truth[truth < 0] = ignored << bits if kind == "void" else 4 << bits
            for frame in range(len(truth)):
                metric.update_state(truth[frame], guess[frame], number)
            videos.append({"truth": rows(truth), "prediction": rows(guess)})
        scores = {name: np.asarray(value, float).tolist() for name, value in metric.result().items() if name in STQ_SCORES}
        sets[kind] = {"videos": videos, "results": scores}
    settings = {"classes": 7, "things": THINGS, "void_class": ignored, "bits": bits}
    write("segmentation_tracking", "deeplab2", {**settings, "sets": sets})


STQ_SCORES = ("STQ", "AQ", "IoU", "STQ_per_seq", "AQ_per_seq", "IoU_per_seq")


def tracking_labels(generator: np.random.Generator, bits: int, *, with_crowd: bool) -> list[np.ndarray]:
    """Labels (T, H, W) of a truth and a prediction, -1 for void."""
    truths, guesses, categories, own = video(generator, 5)
    labels = []
    for maps, known in ((truths, categories), (guesses, own)):
        label = np.full(maps.shape, -1)
        for index, (segment, category) in enumerate(known.items(), start=1):
            is_crowd = with_crowd and maps is truths and index == len(known)
            label[maps == segment] = (category << bits) + (index if category in THINGS and not is_crowd else 0)
        labels.append(label)
    return labels


def video_objects(folder: Path) -> None:
    """DAVIS' J and F of each object and frame, and their mean, recall and decay without the first and last frame."""
    metrics = load(folder, "davis2017-evaluation", "davis2017/metrics.py")
    statistics = load(folder, "davis2017-evaluation", "davis2017/utils.py").db_statistics
    generator, videos = np.random.default_rng(4), []
    for frames in (9, 12, 7):
        start = np.zeros(SHAPE, np.int64)
        for number in (1, 2, 3):
            start[blob(generator, 0.15)] = number
        step = generator.uniform(-1, 1, 2)
        truths = np.stack([shift(start, step * t, order=0) for t in range(frames)])
        guesses = np.stack([shift(start, step * t * 1.5, order=0) for t in range(frames)])
        guesses[frames // 2 :][guesses[frames // 2 :] == 3] = 0  # an object is lost
        truths[-3:][truths[-3:] == 2] = 0  # an object leaves the view
        objects = {}
        for number in (1, 2, 3):
            if not (truths == number).any():
                continue
            truth, guess = truths[1:-1] == number, guesses[1:-1] == number
            region = np.array([metrics.db_eval_iou(t, g) for t, g in zip(truth, guess, strict=True)], float)
            contour = np.array([metrics.db_eval_boundary(t, g) for t, g in zip(truth, guess, strict=True)], float)
            objects[number] = {
                "J": region.tolist(),
                "F": contour.tolist(),
                "J_mean_recall_decay": [float(each) for each in statistics(region)],
                "F_mean_recall_decay": [float(each) for each in statistics(contour)],
            }
        videos.append({"truth": rows(truths), "prediction": rows(guesses), "objects": objects})
    write("davis_jf", "davis2017-evaluation", {"videos": videos})


# Boundaries


def boundary_iou(folder: Path) -> None:
    """Boundary IoU of pairs of masks, at several shares of the diagonal; and how many pixels each boundary has."""
    peer = load(folder, "boundary-iou-api", "boundary_iou/utils/boundary_utils.py")
    generator, pairs = np.random.default_rng(5), []
    for number in range(12):
        truth = blob(generator, 0.3) if number % 3 else np.ones(SHAPE, bool)
        guess = shift(truth.astype(int), generator.integers(-3, 4, 2), order=0).astype(bool) | blob(generator, 0.02)
        results = []
        for share in (0.02, 0.05, 0.1):
            true, predicted = (peer.mask_to_boundary(mask.astype(np.uint8), share) > 0 for mask in (truth, guess))
            iou = (true & predicted).sum() / (true | predicted).sum()
            results.append(
                {"share": share, "iou": float(iou), "true_pixels": int(true.sum()), "predicted_pixels": int(predicted.sum())}
            )
        pairs.append({"truth": rows(truth), "prediction": rows(guess), "results": results})
    write("boundary_iou", "boundary-iou-api", {"pairs": pairs})


if __name__ == "__main__":
    checkouts = Path(sys.argv[1])
    for make in (panoptic, panoptic_files, video_panoptic, tracking, video_objects, boundary_iou):
        make(checkouts)
