"""Makes tests/golden/causes_tide.json: random objects, and the AP and the main errors that TIDE finds in them.

    python tests/golden/make_causes.py FOLDER

FOLDER is a checkout of github.com/dbolya/tide; it needs pycocotools. Its plots are left out, and with them matplotlib.
"""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from segwright.codecs import rle
from segwright.evaluation.tide_errors import MERGED, SPLIT, match_outcomes

HERE = Path(__file__).parent
MADE_BY = "dbolya/tide 49a5d2a4aeb56795e93a3ed7cc7e6d25757bb4c1 (tidecv 1.0.1)"
NAMES = {"Cls": "class", "Loc": "mask quality", "Both": "class and mask", "Dupe": "duplicate", "Bkg": "false", "Miss": "missed"}
COUNT = 30  # images


def scenes():
    """Truths and predictions in which nothing is merged or split, which TIDE does not know; images without truth it skips."""
    path = HERE.parent / "evaluation" / "test_tide_errors.py"
    spec = importlib.util.spec_from_file_location("test_causes", path)
    makers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(makers)
    for seed in range(1000):
        truth = makers.scene(seed)
        guess = makers.disturbed(truth, 100 + seed)
        guess = replace(guess, scores=np.random.default_rng(seed).random(len(guess)).astype(np.float32).round(4))  # no ties
        became = match_outcomes(guess, truth)
        if not len(truth) or {MERGED, SPLIT} & {*became.predicted.tolist(), *became.true.tolist()}:
            continue
        if (truth.areas() > 0).all() and (guess.areas() > 0).all():
            yield truth, guess


def texts(segmentation):
    return [rle.to_text(rle.encode(mask)) for mask in segmentation.masks()]


def main(folder):
    for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.ticker", "seaborn", "pandas", "tidecv.plotting"):
        sys.modules[name] = ModuleType(name)
    sys.modules["tidecv.plotting"].Plotter = object
    sys.path.insert(0, folder)
    from tidecv import TIDE, Data

    true, predicted, images = Data("true"), Data("predicted"), []
    for number, (truth, guess) in zip(range(COUNT), scenes(), strict=False):
        shape = list(truth.shape)
        image = {
            "true": [[int(k), text] for k, text in zip(truth.class_ids, texts(truth), strict=True)],
            "predicted": [
                [int(k), round(float(score), 4), text]
                for k, score, text in zip(guess.class_ids, guess.scores, texts(guess), strict=True)
            ],
        }
        for k, text in image["true"]:
            true.add_ground_truth(number, k, None, {"size": shape, "counts": text.encode()})
        for k, score, text in image["predicted"]:
            predicted.add_detection(number, k, score, None, {"size": shape, "counts": text.encode()})
        images.append(image)
    tide = TIDE()
    tide.evaluate(true, predicted, mode=TIDE.MASK)
    errors = tide.get_main_errors()["predicted"]
    head = {
        "made_by": MADE_BY,
        "notes": f"AP and main errors of masks at IoU 0.5, in per cent, of {COUNT} images {shape[0]} x {shape[1]} with two "
        "classes where nothing is merged or split; masks are COCO's compressed RLE",
        "ap": tide.runs["predicted"].ap,
        "costs": {NAMES[short]: value for short, value in errors.items()},
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    rows = ",\n".join("  " + json.dumps(image, separators=(",", ":")) for image in images)
    (HERE / "causes_tide.json").write_text("{\n" + ",\n".join(lines) + ',\n "images": [\n' + rows + "\n ]\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
