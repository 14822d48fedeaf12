"""Makes tests/golden/nnunet_models/: model folders that nnU-Net's own planner and trainer write, and what its predictor says.

    python tests/golden/make_nnunet_model.py

It needs nnunetv2 2.8.1 and SimpleITK. Volumes are made up: two balls in noise with nothing around. Of each plan the first
stages are kept, with few channels, and windows so small that several are needed. Networks learn in a loop of their own, without
augmentation, since a minute of nnU-Net's would be too short.
"""

import json
import multiprocessing
import os
import shutil
import tempfile
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.ndimage import gaussian_filter

PLACE = Path(__file__).parent / "nnunet_models"
SETS: dict[str, dict[str, Any]] = {
    "even": dict(shapes=[(26, 36, 32), (28, 32, 40)], spacings=[(1.2, 1.0, 1.0), (1.0, 1.1, 1.0)], channel="MRI", folds=2),
    "thick": dict(shapes=[(36, 32, 12), (32, 40, 14)], spacings=[(1.0, 1.1, 4.5), (1.0, 1.0, 5.5)], channel="CT", folds=1),
}
NEW = {"even": ((30, 34, 38), (0.9, 1.05, 1.1)), "thick": ((34, 38, 13), (1.1, 0.9, 5.2))}  # the volume to predict
CASES, FEATURES, STEPS, WINDOW = 4, [4, 6, 8], 120, 20
CLASSES = {"background": 0, "a": 1, "b": 2}


def volume(
    generator: np.random.Generator, shape: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """A volume int16 with a brighter and a much brighter ball, and their labels."""
    extent = np.multiply(shape, spacing_mm)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * spacing_mm
    image, labels = generator.normal(100, 8, shape), np.zeros(shape, np.uint8)
    for label in (1, 2):
        middle, radius = extent * generator.uniform(0.35, 0.65, 3), extent.min() * generator.uniform(0.2, 0.3)
        inside = np.square(places - middle).sum(axis=-1) < radius**2
        image[inside], labels[inside] = 100 + 60 * label, label
    image = gaussian_filter(image, 0.7)
    for outside in (np.s_[:3], np.s_[:, :4], np.s_[:, :, -1:]):
        image[outside] = labels[outside] = 0
    return image.astype(np.int16), labels


def write(path: Path, array: np.ndarray, spacing_mm: tuple[float, ...]) -> None:
    """A NIfTI file of an array (z, y, x)."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(step) for step in reversed(spacing_mm)])
    sitk.WriteImage(image, str(path))


def raw(folder: Path, facts: dict[str, Any]) -> None:
    """A raw data set of nnU-Net."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    generator = np.random.default_rng(0)
    for number in range(CASES):
        shape, spacing = (facts[key][number % 2] for key in ("shapes", "spacings"))
        image, labels = volume(generator, shape, spacing)
        write(folder / "imagesTr" / f"case{number}_0000.nii.gz", image, spacing)
        write(folder / "labelsTr" / f"case{number}.nii.gz", labels, spacing)
    content = {"channel_names": {"0": facts["channel"]}, "labels": CLASSES, "numTraining": CASES, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))


def smaller(plans: dict[str, Any]) -> None:
    """Fewer stages, channels and pixels in both configurations of plans."""
    for plan in (plans["configurations"][name] for name in ("2d", "3d_fullres")):
        given = plan["architecture"]["arch_kwargs"]
        count = given["n_stages"] = min(len(FEATURES), given["n_stages"])
        for key in ("kernel_sizes", "strides", "n_conv_per_stage"):
            given[key] = given[key][:count]
        given |= {"features_per_stage": FEATURES[:count], "n_conv_per_stage_decoder": [2] * (count - 1)}
        divisors = np.prod(given["strides"], axis=0)
        sides = zip(plan["patch_size"], divisors, strict=True)
        plan["patch_size"] = [int(max(min(side, WINDOW) // divisor, 1) * divisor) for side, divisor in sides]


def learn(trainer: Any, dataset: Path) -> None:
    """Adam on random windows of the cases as nnU-Net prepares them."""
    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    prepare, patch_size = DefaultPreprocessor(verbose=False), trainer.configuration_manager.patch_size
    cases = []
    for number in range(CASES):
        files = [str(dataset / "imagesTr" / f"case{number}_0000.nii.gz")], str(dataset / "labelsTr" / f"case{number}.nii.gz")
        image, labels, _ = prepare.run_case(*files, trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json)
        room = [(0, max(most - side, 0)) for side, most in zip(image.shape[-len(patch_size) :], patch_size, strict=True)]
        room = [(0, 0)] * (image.ndim - len(room)) + room
        cases.append((np.pad(image, room), np.pad(np.maximum(labels, 0), room)))
    generator, network = np.random.default_rng(1), trainer.network
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(STEPS):
        windows = []
        for image, labels in (cases[generator.integers(CASES)] for _ in range(2)):
            corner = [
                generator.integers(side - most + 1)
                for side, most in zip(image.shape[-len(patch_size) :], patch_size, strict=True)
            ]
            window = tuple(slice(at, at + most) for at, most in zip(corner, patch_size, strict=True))
            if len(patch_size) == 2:
                window = (generator.integers(image.shape[1]), *window)
            windows.append((image[:, *window], labels[0][window]))
        images, targets = (torch.from_numpy(np.stack(part)) for part in zip(*windows, strict=True))
        outputs = network(images.float())
        loss = torch.nn.functional.cross_entropy(outputs[0], targets.long(), weight=torch.tensor([1.0, 4.0, 4.0]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def main() -> None:
    """Write the folders."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = f"{folder}/{name}"
        os.environ |= {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
        shutil.rmtree(PLACE, ignore_errors=True)
        for number, name in enumerate(SETS, start=1):
            made(Path(folder), f"Dataset{number:03}_{name}", name)


def made(folder: Path, dataset: str, name: str) -> None:
    """The models of one data set, and what they say of a new volume."""
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    raw(folder / "raw" / dataset, SETS[name])
    number = int(dataset[7:10])
    with patch.object(multiprocessing, "get_context", lambda *_: SimpleNamespace(Pool=ThreadPool)):
        extract_fingerprints([number], num_processes=1)
    with torch.device("meta"):  # networks of full size are built to count what their maps hold
        plan_experiments([number])
    plans = json.loads((folder / "preprocessed" / dataset / "nnUNetPlans.json").read_text())
    smaller(plans)
    content = json.loads((folder / "raw" / dataset / "dataset.json").read_text())
    shape, spacing = NEW[name]
    image, labels = volume(np.random.default_rng(9), shape, spacing)
    found = {"image": image[None], "spacing_mm": np.array(spacing)}
    for configuration in ("2d", "3d_fullres"):
        for fold in range(SETS[name]["folds"] if configuration == "3d_fullres" else 1):
            torch.manual_seed(fold)
            given = plans | {"continue_training": False}  # which nnU-Net takes out again
            trainer = nnUNetTrainer(given, configuration, fold, content, device=torch.device("cpu"))
            with patch("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class"):  # of files that are not there
                trainer.initialize()
            trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            learn(trainer, folder / "raw" / dataset)
            trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
        model = Path(trainer.output_folder_base)
        (model / "plans.json").write_text(json.dumps(plans))
        (model / "dataset.json").write_text(json.dumps(content))
        predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model), None)
        key = f"{name}_{configuration}"
        found[key] = predictor.predict_single_npy_array(
            image[None].astype(np.float32), {"spacing": list(spacing)}, None, None, False
        ).astype(np.uint8)
        print(key, "right:", np.mean(found[key] == labels), "patch", plans["configurations"][configuration]["patch_size"])
        for file in (*model.glob("*.json"), *model.glob("fold_*/checkpoint_final.pth")):
            if "fingerprint" not in file.name:
                target = PLACE / key / file.relative_to(model)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    np.savez_compressed(PLACE / f"{name}.npz", **found)


if __name__ == "__main__":
    main()
