"""Panoptic quality, from arrays and from files. Axes: H, W."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from metric_cases.case import Case, Side, data_folder, kept
from metric_cases.scenes import panoptic_pair

SETS = {  # images, size, thing classes, stuff classes, objects an image
    "100 images of 480 x 640, 133 classes": (100, (480, 640), 80, 53, 12),
    "8 images of 1024 x 2048, 19 classes": (8, (1024, 2048), 8, 11, 60),
}
COCO_LIKE = next(iter(SETS))


def cases() -> Iterator[Case]:
    """COCO- and Cityscapes-like sets from arrays on one core, and from files on two."""
    for name, setting in SETS.items():
        count, shape, things, stuff, _ = setting
        yield Case(
            group="panoptic",
            name=f"PQ, {name}, from arrays",
            make=lambda is_small, name=name, setting=setting: make(name, setting, 2 if is_small else setting[0]),
            cores=1,
            targets={"panopticapi": 10},
            amount=count * shape[0] * shape[1] / 1e6,
            sides={
                "segwright": Side(run=ours, prepare=as_segmentations),
                "panopticapi": Side(
                    run=with_panopticapi, prepare=coco, needs=("panopticapi",), note="ids are handed over, not read"
                ),
            },
        )
    yield Case(
        group="panoptic",
        name=f"PQ, {COCO_LIKE}, from files",
        make=files,
        amount=SETS[COCO_LIKE][0],
        units="images",
        sides={
            "segwright": Side(run=ours_from_files, note="reads only the heads of the photographs"),
            "panopticapi": Side(
                run=panopticapi_from_files, needs=("panopticapi",), note="memory of its processes is not counted"
            ),
        },
    )
    yield Case(
        group="panoptic",
        name="PQ, 4 images of 480 x 640, 133 classes, no crowds",
        make=lambda is_small: make("no crowds", (4, (480, 640), 80, 53, 12), 1 if is_small else 4, with_crowds=False),
        cores=1,
        amount=4 * 480 * 640 / 1e6,
        sides={
            "segwright": Side(run=ours, prepare=as_segmentations),
            "torchmetrics": Side(
                run=with_torchmetrics, prepare=as_tensors, needs=("torchmetrics",), note="forgives misses, see docs/metrics.md"
            ),
        },
    )


def make(name: str, setting: tuple, count: int, *, with_crowds: bool = True) -> dict[str, Any]:
    """Pairs of maps and what the segments are."""
    images, shape, things, stuff, objects = setting

    def all_pairs() -> list:
        generator = np.random.default_rng(0)
        pairs = [panoptic_pair(generator, shape, things, stuff, objects) for _ in range(images)]
        return pairs if with_crowds else [{**pair, "crowd": None} for pair in pairs]

    return {"pairs": kept(name, all_pairs)[:count], "things": things, "stuff": stuff}


def as_segmentations(data: dict) -> Any:
    """The pairs as our data type: segments numbered from 1, void -1."""
    from segwright.core import Classes, Segmentation

    count = data["things"] + data["stuff"]
    classes = Classes.of([str(k + 1) for k in range(count)], is_thing=[k < data["things"] for k in range(count)])

    def of(ids: np.ndarray, categories: dict, crowd: int | None, void: int) -> Segmentation:
        number = np.full(int(ids.max()) + 1, void, np.int32)
        number[list(categories)] = np.arange(1, len(categories) + 1)
        class_ids = np.array(list(categories.values())) - 1
        is_object = (class_ids < data["things"]) & (np.array(list(categories)) != crowd)
        return Segmentation.panoptic(number[ids], class_ids, np.cumsum(is_object) * is_object, classes=classes)

    pairs = [
        (of(each["prediction"], each["categories"], None, 0), of(each["truth"], each["true_categories"], each["crowd"], -1))
        for each in data["pairs"]
    ]
    return {"pairs": pairs, "classes": classes}


def ours(data: dict) -> dict[str, float]:
    """Our metric."""
    from segwright.metrics.panoptic_quality import PanopticQuality

    metric = PanopticQuality(data["classes"])
    state = metric.count(*data["pairs"][0])
    for pair in data["pairs"][1:]:
        state = state + metric.count(*pair)
    result = {name: float(value) for name, value in metric.score(state).items()}
    return {name: value for name, value in result.items() if not np.isnan(value)}


def coco(data: dict) -> tuple[list, dict, dict]:
    """Pairs of annotations as panopticapi wants them, the maps by name, and the categories."""
    annotations, maps = [], {}
    for number, each in enumerate(data["pairs"]):
        maps |= {f"t{number}": each["truth"], f"p{number}": each["prediction"]}
        truth = [{"id": s, "category_id": c, "iscrowd": int(s == each["crowd"])} for s, c in each["true_categories"].items()]
        for segment in truth:
            segment["area"] = int((each["truth"] == segment["id"]).sum())
        found = [{"id": s, "category_id": c} for s, c in each["categories"].items()]
        annotations.append(
            (
                {"file_name": f"t{number}", "image_id": number, "segments_info": truth},
                {"file_name": f"p{number}", "image_id": number, "segments_info": found},
            )
        )
    total = data["things"] + data["stuff"]
    return annotations, maps, {k + 1: {"id": k + 1, "isthing": int(k < data["things"])} for k in range(total)}


def with_panopticapi(prepared: tuple) -> dict[str, float]:
    """panopticapi on one core, with arrays in place of the images that it would open."""
    from panopticapi import evaluation

    annotations, maps, categories = prepared
    opened = SimpleNamespace(open=lambda path: maps[Path(path).name])
    with patch.multiple(evaluation, Image=opened, rgb2id=lambda ids: ids), contextlib.redirect_stdout(io.StringIO()):
        stat = evaluation.pq_compute_single_core(0, annotations, "", "", categories)
    return of_panopticapi({name: stat.pq_average(categories, kind)[0] for name, kind in KINDS.items()}, stat, categories)


KINDS = {"All": None, "Things": True, "Stuff": False}


def of_panopticapi(results: dict, stat: Any, categories: dict) -> dict[str, float]:
    """Its results under our names."""
    found = {}
    for kind, ending in (("All", ""), ("Things", " things"), ("Stuff", " stuff")):
        found |= {f"{score}{ending}": results[kind][score.lower()] for score in ("PQ", "SQ", "RQ")}
    _, per_class = stat.pq_average(categories, None)
    counted = [k for k in categories if stat.pq_per_cat[k].tp + stat.pq_per_cat[k].fp + stat.pq_per_cat[k].fn]
    return found | {f"PQ/{k}": per_class[k]["pq"] for k in counted}


def as_tensors(data: dict) -> Any:
    """Maps (1, H, W, 2) of category and segment."""
    import torch

    void = data["things"] + data["stuff"] + 1  # what no class is called
    pairs = []
    for each in data["pairs"]:
        both = []
        for ids, categories in ((each["prediction"], each["categories"]), (each["truth"], each["true_categories"])):
            category_of = np.full(int(ids.max()) + 1, void)
            category_of[list(categories)] = list(categories.values())
            category = category_of[ids]
            both.append(torch.from_numpy(np.stack([category, ids.astype(np.int64)], axis=-1))[None])
        pairs.append(tuple(both))
    return pairs, data["things"], data["stuff"]


def with_torchmetrics(prepared: tuple) -> dict[str, float]:
    """torchmetrics, image by image; it knows no crowds."""
    from torchmetrics.detection import PanopticQuality

    pairs, things, stuff = prepared
    metric = PanopticQuality(
        things=set(range(1, things + 1)), stuffs=set(range(things + 1, things + stuff + 1)), allow_unknown_preds_category=True
    )
    for prediction, truth in pairs:
        metric.update(prediction, truth)
    return {"PQ": float(metric.compute())}


def files(is_small: bool) -> Path:
    """A folder with a COCO panoptic data set of truths and one of predictions, each with black photographs."""
    from segwright.core import Sample
    from segwright.formats import coco_panoptic

    count = 4 if is_small else SETS[COCO_LIKE][0]
    folder = data_folder() / f"panoptic {count}"
    if folder.is_dir():
        return folder
    pairs = as_segmentations(make(COCO_LIKE, SETS[COCO_LIKE], count))["pairs"]
    for index, name in enumerate(("prediction", "truth")):
        photograph = np.zeros((3, *SETS[COCO_LIKE][1]), np.uint8)
        samples = [Sample.of(f"{n:06}", photograph, pair[index]) for n, pair in enumerate(pairs)]
        coco_panoptic.write(folder / name, samples)
    return folder


def ours_from_files(folder: Path) -> dict[str, float]:
    """What `segwright metrics prediction truth --metrics PQ` does, without intervals."""
    from segwright.evaluation.evaluate import tally_pairs
    from segwright.evaluation.load_pairs import open_pairs

    tally = tally_pairs(open_pairs(folder / "prediction", folder / "truth"), ["panoptic_quality"], processes=2)
    return {name: value for name, value in tally.scores(0).values.items() if not np.isnan(value)}


def panopticapi_from_files(folder: Path) -> dict[str, float]:
    """What its command line does, on both cores."""
    from panopticapi.evaluation import pq_compute

    jsons = [str(folder / name / "annotations" / "panoptic.json") for name in ("truth", "prediction")]
    with contextlib.redirect_stdout(io.StringIO()):
        results = pq_compute(*jsons)
    endings = (("All", ""), ("Things", " things"), ("Stuff", " stuff"))
    return {f"{score}{ending}": results[kind][score.lower()] for kind, ending in endings for score in ("PQ", "SQ", "RQ")}
