"""Makes tests/golden/nnunet_real.json and nnunet_thick.npz: what nnU-Net finds in real data, plans for them, and resamples.

    python tests/golden/make_nnunet_real.py ../shared/data

It needs nnunetv2 2.8.1 and SimpleITK. Fingerprints are nnU-Net's own, of the training data of the hippocampus (200 volumes) and
of membranes (24 images); of them spacings, shapes and intensities are kept, and no pixel. The volume that is resampled is made
up: its slices are thick, so that nnU-Net interpolates in planes alone.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from make_nnunet import HERE, PLANNERS, kept

KEPT = ("normalization_schemes", "use_mask_for_norm", "resampling_fn_data", "resampling_fn_data_kwargs", "batch_dice")
THICK = {  # name: shape and spacing of a volume, the spacing that it gets
    "finer": ((5, 12, 10), (6.0, 1.0, 1.2), (3.0, 0.8, 0.8)),
    "coarser": ((9, 12, 14), (5.0, 0.7, 0.7), (7.5, 1.0, 1.0)),
    "last axis": ((12, 10, 6), (1.0, 1.0, 4.0), (0.8, 0.8, 2.5)),
    "becomes thick": ((12, 10, 9), (1.0, 1.0, 1.0), (4.0, 1.0, 1.0)),
}


def membrane(data: Path, target: Path) -> None:
    """The membranes as a raw data set: grey images, masks of 0 and 1."""
    from PIL import Image

    for part in ("imagesTr", "labelsTr"):
        (target / part).mkdir(parents=True)
    images = sorted((data / "membrane" / "images").rglob("*.png"))
    for image in images:
        mask = data / "membrane" / "masks" / image.relative_to(data / "membrane" / "images")
        shutil.copy(image, target / "imagesTr" / f"{image.stem}_0000.png")
        Image.fromarray((np.asarray(Image.open(mask)) > 0).astype(np.uint8)).save(target / "labelsTr" / f"{image.stem}.png")
    content = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1}, "file_ending": ".png"}
    (target / "dataset.json").write_text(json.dumps(content | {"numTraining": len(images)}))


def planned(dataset: str, folder: Path) -> dict[str, Any]:
    """The fingerprint of a data set, and all plans for it."""
    import torch
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor as Extractor
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    raw, content = folder / "raw" / dataset, json.loads((folder / "raw" / dataset / "dataset.json").read_text())
    cases = get_filenames_of_train_images_and_targets(str(raw), content)
    reader = determine_reader_writer_from_dataset_json(content, next(iter(cases.values()))["images"][0])
    seen = [Extractor.analyze_case(case["images"], case["label"], reader, 500) for case in cases.values()]
    values = np.concatenate([each[2][0] for each in seen])
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    intensity = dict(mean=values.mean(), std=values.std(), min=values.min(), max=values.max(), median=median)
    intensity |= {"percentile_00_5": low, "percentile_99_5": high}
    fingerprint = {
        "spacings": [list(map(float, each[1])) for each in seen],
        "shapes_after_crop": [list(map(int, each[0])) for each in seen],
        "median_relative_size_after_cropping": float(np.median([each[4] for each in seen])),
        "foreground_intensity_properties_per_channel": {"0": {key: float(value) for key, value in intensity.items()}},
    }
    (folder / "preprocessed" / dataset).mkdir(parents=True)
    (folder / "preprocessed" / dataset / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    plans = {}
    for name, planner in PLANNERS.items():
        kind = getattr(residual_encoder_unet_planners, planner, ExperimentPlanner)
        with torch.device("meta"), contextlib.redirect_stdout(io.StringIO()):
            result = kind(dataset).plan_experiment()
        plans[name] = {"transpose_forward": result["transpose_forward"]} | {
            key: kept(one) | {each: one[each] for each in KEPT}
            for key, one in result["configurations"].items()
            if "patch_size" in one
        }
    labels = len(content["labels"])
    return {"channels": 1, "labels": labels, "cases": [*cases], "fingerprint": fingerprint, "plans": plans}


def resampled() -> dict[str, np.ndarray]:
    """A volume float32 (2, *S) for each entry of THICK, and what nnU-Net's default makes of it (2, *T)."""
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

    generator, found = np.random.default_rng(3), {}
    for name, (shape, has, wants) in THICK.items():
        volume = generator.normal(size=(2, *shape)).astype(np.float32)
        new = compute_new_shape(shape, has, wants)
        settings = dict(is_seg=False, order=3, order_z=0, force_separate_z=None)  # of the plans above
        found[f"{name}/in"] = volume
        found[f"{name}/out"] = np.asarray(resample_data_or_seg_to_shape(volume, new, has, wants, **settings), np.float32)
        found[f"{name}/spacings"] = np.array([has, wants])
    return found


def main(data: Path) -> None:
    """Write both files."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = f"{folder}/{name}"
        (folder / "raw").mkdir()
        (folder / "raw" / "Dataset001_hippocampus").symlink_to((data / "hippocampus").resolve())
        membrane(data, folder / "raw" / "Dataset002_membrane")
        sets = {name.partition("_")[2]: planned(name, folder) for name in ("Dataset001_hippocampus", "Dataset002_membrane")}
        content = {"made_by": f"nnunetv2 {version('nnunetv2')}", "sets": sets}
    text = json.dumps(content, separators=(",", ":"), default=lambda value: value.tolist())
    (HERE / "nnunet_real.json").write_text(text + "\n")
    np.savez_compressed(HERE / "nnunet_thick.npz", **resampled())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
