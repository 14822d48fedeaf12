"""Average precision of masks, from run lengths and from dense masks. Axes: N objects, H, W."""

import contextlib
import copy
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metric_cases.case import Case, Side, kept
from metric_cases.scenes import many_classes, nuclei

REAL = Path(__file__).parents[2] / "../shared/data/nuclei"  # the data set, where it is
COCO, MANY = (1, 10, 100), (1, 10, 500)  # detections of a class in an image; 100 are too few for nuclei
RANGES = ("", " small", " medium", " large")


def cases() -> Iterator[Case]:
    """Sets of many classes and of one, from run lengths; smaller ones from dense masks."""
    sets = {
        "80 classes, 500 images, 25 000 detections": (many_classes, 500, COCO, {"faster-coco-eval": 2, "hotcoco": 1.2}),
        "nuclei, 40 images, 4 860 detections": (nuclei, 40, MANY, {"faster-coco-eval": 1.5, "hotcoco": 1.2}),
    }
    if REAL.is_dir():
        sets["real nuclei, 40 images"] = (real_nuclei, 40, MANY, {"faster-coco-eval": 1.5, "hotcoco": 1.2})
    for name, (make, images, limits, targets) in sets.items():
        yield Case(
            group="average_precision",
            name=f"AP from RLE, {name}",
            make=partial(lists, make, images),
            targets=targets,
            amount=images,
            units="images",
            sides={
                "segwright": Side(run=partial(ours, limits), prepare=copied),
                "faster-coco-eval": Side(run=partial(with_faster, limits), prepare=copied, needs=("faster_coco_eval",)),
                "hotcoco": Side(run=partial(with_hotcoco, limits), prepare=copied, needs=("hotcoco",)),
                **(
                    {} if make is real_nuclei else {"pycocotools": pycocotools_side(limits)}
                ),  # as slow as on the synthetic ones
            },
        )
    for name, make, images, limits in (
        ("80 classes, 100 images", many_classes, 100, COCO),
        ("nuclei, 40 images", nuclei, 40, MANY),
    ):
        peers = {"faster-coco-eval": 4, "pycocotools": 4, "torchmetrics, faster-coco-eval": 4}
        yield Case(
            group="average_precision",
            name=f"AP from bool masks, {name}",
            make=partial(dense, make, images),
            targets=peers,
            amount=images,
            units="images",
            sides={
                "segwright": Side(run=partial(ours_dense, limits)),
                "faster-coco-eval": Side(
                    run=partial(encoded_first, with_faster, limits), needs=("faster_coco_eval", "pycocotools")
                ),
                "pycocotools": Side(run=partial(encoded_first, with_pycocotools, limits), needs=("pycocotools",)),
                "torchmetrics, faster-coco-eval": Side(
                    run=partial(with_torchmetrics, limits), needs=("torchmetrics", "faster_coco_eval")
                ),
            },
        )


def pycocotools_side(limits: tuple[int, ...]) -> Side:
    """pycocotools as a side."""
    return Side(run=partial(with_pycocotools, limits), prepare=copied, needs=("pycocotools",))


def lists(make: Any, images: int, is_small: bool) -> dict[str, Any]:
    """COCO's lists of a set."""
    name = make.__name__
    return make(2) if is_small else kept(f"{name} {images}", lambda: make(images))


def real_nuclei(images: int) -> dict[str, Any]:
    """The most crowded real images, and results made of their truth: moved, some lost, some cut, with scores."""
    from pycocotools import mask as coco

    truth = json.loads((REAL / "instances_train.json").read_text())
    counts = {image["id"]: 0 for image in truth["images"]}
    for annotation in truth["annotations"]:
        counts[annotation["image_id"]] += 1
    chosen = set(sorted(counts, key=counts.get)[-images:])
    truth["images"] = [image for image in truth["images"] if image["id"] in chosen]
    truth["annotations"] = [annotation for annotation in truth["annotations"] if annotation["image_id"] in chosen]
    generator, results = np.random.default_rng(2), []
    for annotation in truth["annotations"]:
        mask = np.roll(coco.decode(annotation["segmentation"]), generator.integers(-2, 3, 2), axis=(0, 1))
        encoded = coco.encode(np.asfortranarray(mask))
        score = float(np.round(generator.random(), 3))
        result = {"image_id": annotation["image_id"], "category_id": 1, "score": score, "bbox": coco.toBbox(encoded).tolist()}
        results.append({**result, "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode()}})
    return {"truth": truth, "results": results}


def copied(data: dict) -> dict[str, Any]:
    """The lists anew, as the peers write into them."""
    return copy.deepcopy(data)


def ours(limits: tuple[int, ...], data: dict) -> dict[str, float]:
    """Our reader of COCO's lists."""
    from segwright.evaluation.coco_results import coco_results

    return coco_results(data["truth"], data["results"], max_detections=limits).scores()


def with_pycocotools(limits: tuple[int, ...], data: dict) -> dict[str, float]:
    """pycocotools from lists in memory."""
    from pycocotools.coco import COCO as Coco
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = Coco()
        truth.dataset = data["truth"]
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(data["results"]), "segm")
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
    return summary(evaluation.eval, limits, data["truth"])


def with_faster(limits: tuple[int, ...], data: dict) -> dict[str, float]:
    """faster-coco-eval from lists in memory."""
    from faster_coco_eval import COCO as Coco
    from faster_coco_eval import COCOeval_faster

    truth = Coco(data["truth"])
    evaluation = COCOeval_faster(truth, truth.loadRes(data["results"]), "segm")
    evaluation.params.maxDets = list(limits)
    evaluation.evaluate()
    evaluation.accumulate()
    return summary(evaluation.eval, limits, data["truth"])


def with_hotcoco(limits: tuple[int, ...], data: dict) -> dict[str, float]:
    """hotcoco, in Rust, from lists in memory: the 12 scores alone. It takes as many threads as there are cores."""
    from hotcoco import COCO as Coco
    from hotcoco import COCOeval

    truth = Coco(data["truth"])
    evaluation = COCOeval(truth, truth.load_res(data["results"]), "segm")
    evaluation.params.max_dets = list(limits)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ranges = [f"{score}{name}" for score in ("AP", "AR") for name in RANGES[1:]]
    names = ["AP", "AP50", "AP75", *ranges[:3], *(f"AR@{limit}" for limit in limits), *ranges[3:]]
    return {name: float("nan") if value < 0 else float(value) for name, value in zip(names, evaluation.stats, strict=True)}


def summary(found: dict, limits: tuple[int, ...], truth: dict) -> dict[str, float]:
    """Our names for COCO's tables of precision (T, R, K, A, L) and recall (T, K, A, L), where -1 stands for unknown."""
    precision, recall = (np.where(np.asarray(found[name]) < 0, np.nan, found[name]) for name in ("precision", "recall"))
    scores = {"AP50": np.nanmean(precision[0, :, :, 0, -1]), "AP75": np.nanmean(precision[5, :, :, 0, -1])}
    for a, name in enumerate(RANGES):
        scores[f"AP{name}"] = np.nanmean(precision[..., a, -1])
        scores[f"AR{name or f'@{limits[-1]}'}"] = np.nanmean(recall[..., a, -1])
    for n, limit in enumerate(limits):
        scores[f"AR@{limit}"] = np.nanmean(recall[:, :, 0, n])
    categories = sorted(truth["categories"], key=lambda each: each["id"])
    for k, category in enumerate(categories):
        of_class = precision[:, :, k, 0, -1]
        scores[f"AP/{category['name']}"] = np.nan if np.isnan(of_class).all() else np.nanmean(of_class)
    return {name: float(value) for name, value in scores.items()}


# Dense masks


def dense(make: Any, images: int, is_small: bool) -> list[dict[str, Any]]:
    """Masks bool (N, H, W), classes and scores of each image, and its truth without crowds, which not all sides know."""
    from pycocotools import mask as coco

    data = lists(make, images, is_small)
    groups: dict[int, tuple[list, list]] = {image["id"]: ([], []) for image in data["truth"]["images"]}
    for annotation in data["truth"]["annotations"]:
        if not annotation["iscrowd"]:
            groups[annotation["image_id"]][0].append(annotation)
    for result in data["results"]:
        groups[result["image_id"]][1].append(result)
    found = []
    for image in data["truth"]["images"]:
        each: dict[str, Any] = {"image": image, "categories": data["truth"]["categories"]}
        for name, entries in zip(("true", "predicted"), groups[image["id"]], strict=True):
            masks = np.zeros((len(entries), image["height"], image["width"]), bool)
            for n, entry in enumerate(entries):
                masks[n] = coco.decode(entry["segmentation"])
            each[f"{name}_masks"] = masks
            each[f"{name}_classes"] = np.array([entry["category_id"] for entry in entries], int) - 1
        each["scores"] = np.array([entry["score"] for entry in groups[image["id"]][1]])
        found.append(each)
    return found


def ours_dense(limits: tuple[int, ...], data: list) -> dict[str, float]:
    """Our metric by runs of the masks, image by image."""
    from segwright.core import Classes
    from segwright.metrics.average_precision import AveragePrecision
    from segwright.metrics.matching import Matches, Objects
    from segwright.metrics.rle_overlap import Runs

    names = [category["name"] for category in data[0]["categories"]]
    metric = AveragePrecision(Classes.of(names, is_thing=[True] * len(names)), max_detections=limits)
    images = []
    for each in data:
        runs, true_runs = Runs.of_masks(each["predicted_masks"]), Runs.of_masks(each["true_masks"])
        detections = Objects(each["predicted_classes"], runs.areas, scores=each["scores"])
        images += metric.count_runs(runs, detections, true_runs, Objects(each["true_classes"], true_runs.areas)).images
    return {name: float(value) for name, value in metric.score(Matches(tuple(images))).items()}


def encoded_first(run: Any, limits: tuple[int, ...], data: list) -> dict[str, float]:
    """A peer that knows run lengths only."""
    return run(limits, lists_of(data))


def lists_of(data: list) -> dict[str, Any]:
    """COCO's lists, the masks encoded by pycocotools."""
    from pycocotools import mask as coco

    truths, results = [], []
    for each in data:
        image = each["image"]["id"]
        for name, entries in (("true", truths), ("predicted", results)):
            encoded = coco.encode(np.asfortranarray(each[f"{name}_masks"].transpose(1, 2, 0).view(np.uint8)))
            for n, (rle, k) in enumerate(zip(encoded, each[f"{name}_classes"].tolist(), strict=True)):
                entry = {"image_id": image, "category_id": k + 1, "segmentation": rle}
                if name == "true":
                    more = {
                        "id": len(truths) + 1,
                        "iscrowd": 0,
                        "area": int(coco.area(rle)),
                        "bbox": coco.toBbox(rle).tolist(),
                    }
                else:
                    more = {"score": float(each["scores"][n])}
                entries.append({**entry, **more})
    truth = {"images": [each["image"] for each in data], "annotations": truths, "categories": data[0]["categories"]}
    return {"truth": truth, "results": results}


def with_torchmetrics(limits: tuple[int, ...], data: list) -> dict[str, float]:
    """torchmetrics with the faster of its backends, and COCO's recalls and thresholds in place of its own in float32.

    With other limits than COCO's, its `map` is -1 (see docs/metrics.md).
    """
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(
        iou_type="segm",
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        max_detection_thresholds=list(limits),
        backend="faster_coco_eval",
    )
    for each in data:
        predicted = {
            "masks": torch.from_numpy(each["predicted_masks"]),
            "labels": torch.from_numpy(each["predicted_classes"]),
            "scores": torch.from_numpy(each["scores"]),
        }
        true = {"masks": torch.from_numpy(each["true_masks"]), "labels": torch.from_numpy(each["true_classes"])}
        metric.update([predicted], [true])
    found = metric.compute()
    names = {"map": "AP", "map_50": "AP50", "map_75": "AP75", "map_small": "AP small", "map_medium": "AP medium"}
    names |= {"map_large": "AP large"} | {f"mar_{limit}": f"AR@{limit}" for limit in limits}
    return {ours: float(found[theirs]) for theirs, ours in names.items() if float(found[theirs]) >= 0}
