"""Makes tests/golden/nnunet_plans.json: made-up data sets, and the plans that nnU-Net's own planners make for them.

    python tests/golden/make_nnunet.py

It needs nnunetv2 2.8.1, which needs no GPU and no images here: a planner reads spacings, shapes, channels and labels alone.
"""

import contextlib
import io
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SETS: dict[str, dict[str, Any]] = {  # spacing and shape of the usual image, and by how much others differ
    "ct": dict(spacing=(1.0, 0.8, 0.8), shape=(480, 512, 512), spread=0.2, count=24, channels=1, labels=14),
    "hippocampus": dict(spacing=(1.0, 1.0, 1.0), shape=(36, 50, 35), spread=0.1, count=260, channels=1, labels=3),
    "heart": dict(spacing=(10.0, 1.56, 1.56), shape=(9, 256, 216), spread=0.3, count=200, channels=1, labels=4),
    "prostate": dict(spacing=(0.6, 0.6, 3.6), shape=(320, 320, 20), spread=0.1, count=32, channels=2, labels=3),
    "cells": dict(spacing=(999.0, 1.0, 1.0), shape=(1, 520, 696), spread=0.0, count=60, channels=3, labels=2),
}
PLANNERS = {
    "nnUNetPlans": "ExperimentPlanner",
    "nnUNetResEncUNetMPlans": "nnUNetPlannerResEncM",
    "nnUNetResEncUNetLPlans": "nnUNetPlannerResEncL",
    "nnUNetResEncUNetXLPlans": "nnUNetPlannerResEncXL",
}
KEPT = ("batch_size", "patch_size", "median_image_size_in_voxels", "spacing")
ARCHITECTURE = ("n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder")


def made_up(facts: dict[str, Any], generator: np.random.Generator) -> tuple[list[list[float]], list[list[int]]]:
    """Spacings and shapes of as many images, each around the usual one."""
    spacings, shapes = [], []
    for _ in range(facts["count"]):
        factor = np.exp(facts["spread"] * generator.standard_normal(2))  # of the thickness of slices, and of the field of view
        spacing, shape = np.array(facts["spacing"]), np.array(facts["shape"], float)
        thick = int(np.argmax(spacing))
        spacing[thick] *= factor[0]
        shape[thick] /= factor[0]
        spacings.append([round(float(step), 3) for step in spacing])
        shapes.append([max(1, round(float(side) * (factor[1] if shape[thick] > 1 else 1))) for side in shape])
    return spacings, shapes


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = f"{folder}/{name}"
        content = {"made_by": f"nnunetv2 {version('nnunetv2')}", "sets": planned(Path(folder))}
    (HERE / "nnunet_plans.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")


def planned(folder: Path) -> dict[str, Any]:
    """All sets with all their plans; networks, which are built to count what their maps hold, take no memory."""
    import torch
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners

    generator, found = np.random.default_rng(15), {}
    for number, (name, facts) in enumerate(SETS.items(), start=1):
        dataset, (spacings, shapes) = f"Dataset{number:03}_{name}", made_up(facts, generator)
        for part in ("raw/{}/imagesTr", "raw/{}/labelsTr", "preprocessed/{}"):
            (folder / part.format(dataset)).mkdir(parents=True)
        content = {
            "channel_names": {str(channel): "MRI" for channel in range(facts["channels"])},
            "labels": {f"class {label}" if label else "background": label for label in range(facts["labels"])},
            "numTraining": facts["count"],
            "file_ending": ".nii.gz",
            "overwrite_image_reader_writer": "SimpleITKIO",  # which keeps it from opening an image
        }
        (folder / "raw" / dataset / "dataset.json").write_text(json.dumps(content))
        for channel in range(facts["channels"]):
            (folder / "raw" / dataset / "imagesTr" / f"a_{channel:04}.nii.gz").touch()
        (folder / "raw" / dataset / "labelsTr" / "a.nii.gz").touch()
        fingerprint = {"spacings": spacings, "shapes_after_crop": shapes, "median_relative_size_after_cropping": 1.0}
        fingerprint["foreground_intensity_properties_per_channel"] = {}
        (folder / "preprocessed" / dataset / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        found[name] = {key: facts[key] for key in ("channels", "labels")} | {
            "spacings": spacings,
            "shapes": shapes,
            "plans": {},
        }
        for plans, planner in PLANNERS.items():
            kind = getattr(residual_encoder_unet_planners, planner, ExperimentPlanner)
            with torch.device("meta"), contextlib.redirect_stdout(io.StringIO()):
                result = kind(dataset).plan_experiment()
            found[name]["plans"][plans] = {"transpose_forward": result["transpose_forward"]} | {
                key: kept(one) for key, one in result["configurations"].items() if "patch_size" in one
            }
    return json.loads(json.dumps(found, default=lambda value: value.tolist()))


def kept(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a plan is compared."""
    given = plan["architecture"]["arch_kwargs"]
    depths = given.get("n_blocks_per_stage", given.get("n_conv_per_stage"))
    return {key: plan[key] for key in KEPT} | {key: given[key] for key in ARCHITECTURE} | {"encoder_depths": depths}


if __name__ == "__main__":
    main()
