"""The folder of a model that nnU-Net trained: its plan, its labels, and the weights of each fold.

    FOLDER/dataset.json                         channels and labels
    FOLDER/plans.json                           how images are prepared, and what networks look like
    FOLDER/fold_0/checkpoint_final.pth          weights, the configuration they are of, and the axes that were mirrored

What is read is what plans of nnunetv2 2.0 to 2.8 say of plain U-Nets and of those with a residual encoder. A checkpoint is read
as tensors, numbers and texts alone; nothing in it is run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segwright.checkpoints.foreign_weights import read_content, unwrapped
from segwright.core.errors import FormatError
from segwright.formats.nnunet import NnunetMeaning, labels_meaning
from segwright.models import nnunet

CHECKPOINT = "checkpoint_final.pth"
NETWORKS = {"PlainConvUNet": False, "ResidualEncoderUNet": True}  # whether they are residual
RESAMPLING = "resample_data_or_seg_to_shape"
SCHEMES = ("CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization")
TURNING_READERS = ("NibabelIOWithReorient",)  # which turn the axes of a file before the network sees them


@dataclass(frozen=True, kw_only=True)
class ChannelScheme:
    """How the values of a channel are brought to one scale: by a scheme of nnU-Net, from the statistics of its plan.

    With `in_mask`, only pixels of the content are measured and changed.
    """

    name: str
    in_mask: bool
    statistics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class NnunetFolder:
    """All that a folder says. Axes are in the order of the network: axis i is axis `axis_order[i]` of the file.

    `folds` are the weights of each, under our names; `mirrored` the axes, counted from the end, over whose mirror images to
    average; `region_numbers` the number that each region of the output writes, None where outputs are classes. Images of two
    axes count as one slice; `is_photograph` says that theirs have no spacing.
    """

    network: nnunet.Config
    folds: list[dict[str, Tensor]]
    meaning: NnunetMeaning
    region_numbers: tuple[int, ...] | None
    patch: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    axis_order: tuple[int, int, int]
    channels: tuple[ChannelScheme, ...]
    mirrored: tuple[int, ...]
    is_photograph: bool

    @classmethod
    def read(cls, folder: Path) -> "NnunetFolder":
        """The model in a folder, of all folds with a final checkpoint.

        Raises:
            FormatError: a file is missing or damaged, or the plan has something that is not known here.
        """
        plans, dataset = _json(folder / "plans.json"), _json(folder / "dataset.json")
        files = sorted(folder.glob(f"fold_*/{CHECKPOINT}"))
        if not files:
            raise FormatError(
                f"{folder} has no fold_*/{CHECKPOINT}, which nnU-Net writes at the end of training; finish it, or rename "
                "checkpoint_best.pth so"
            )
        contents = [(file, read_content(file)) for file in files]
        try:
            return cls._of(folder, plans, dataset, contents)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise FormatError(
                f"{folder}: plans.json, dataset.json and {CHECKPOINT} are not as nnU-Net 2 writes them "
                f"({type(error).__name__}: {error}); copy the folder again from where it was trained"
            ) from error

    @classmethod
    def _of(cls, folder: Path, plans: Any, dataset: Any, contents: list[tuple[Path, Any]]) -> "NnunetFolder":
        _, first = contents[0]
        name = first["init_args"]["configuration"]
        plan = _configuration(plans, name)
        _check(plan, plans, name, folder)
        meaning = labels_meaning(folder)
        if meaning is None:
            raise FormatError(f"{folder / 'dataset.json'} has no labels; nnU-Net needs them there")
        labels = {key: label for key, label in dataset["labels"].items() if key != "ignore"}
        outputs, numbers = _outputs(dataset, labels)
        channels = dataset.get("channel_names", dataset.get("modality"))
        statistics = plans["foreground_intensity_properties_per_channel"]
        schemes = tuple(
            ChannelScheme(name=scheme, in_mask=bool(in_mask), statistics=statistics.get(str(number), {}))
            for number, (scheme, in_mask) in enumerate(
                zip(plan["normalization_schemes"], plan["use_mask_for_norm"], strict=True)
            )
        )
        network = _network(plan, len(channels), outputs, folder)
        mirrored = first.get("inference_allowed_mirroring_axes") or ()
        return cls(
            network=network,
            folds=[nnunet.rename(unwrapped(content, file)) for file, content in contents],
            meaning=meaning,
            region_numbers=numbers,
            patch=tuple(map(int, plan["patch_size"])),
            spacing_mm=tuple(map(float, plan["spacing"])),
            axis_order=tuple(plans["transpose_forward"]),
            channels=schemes,
            mirrored=tuple(sorted(int(axis) - network.axes for axis in mirrored)),
            is_photograph=plans.get("image_reader_writer") == "NaturalImage2DIO",
        )


def is_nnunet_folder(path: Path) -> bool:
    """Whether a path is the folder of a model of nnU-Net."""
    return (path / "plans.json").is_file() and (path / "dataset.json").is_file()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read ({error}); a model folder of nnU-Net has it") from error


def _configuration(plans: Any, name: str) -> dict[str, Any]:
    """The plan of a configuration, with what it takes over from others."""
    plan = dict(plans["configurations"][name])
    parent = plan.pop("inherits_from", None)
    return _configuration(plans, parent) | plan if parent else plan


def _check(plan: dict[str, Any], plans: Any, name: str, folder: Path) -> None:
    """Refuse what cannot be done here as nnU-Net does it.

    Raises:
        FormatError: it is such a thing.
    """
    data, probabilities = plan["resampling_fn_data_kwargs"], plan["resampling_fn_probabilities_kwargs"]
    wrong = [
        ("previous_stage", plan.get("previous_stage") is not None, "a cascade, whose second network needs the first"),
        (
            "resampling",
            {plan["resampling_fn_data"], plan["resampling_fn_probabilities"]} != {RESAMPLING}
            or (data["order"], data["order_z"], probabilities["order"], probabilities["order_z"]) != (3, 0, 1, 0)
            or {data["force_separate_z"], probabilities["force_separate_z"]} != {None},
            "not by splines and linear, which nnU-Net's own plans have",
        ),
        ("normalization_schemes", not set(plan["normalization_schemes"]) <= set(SCHEMES), "not among nnU-Net's own"),
        ("image_reader_writer", plans.get("image_reader_writer") in TURNING_READERS, "one that turns axes before"),
    ]
    for key, is_wrong, what in wrong:
        if is_wrong:
            raise FormatError(
                f"{folder / 'plans.json'}: {key} of {name} is {what}; predict with nnU-Net itself, or train a configuration "
                "such as 3d_fullres with its default planner"
            )


def _outputs(dataset: Any, labels: dict[str, Any]) -> tuple[int, tuple[int, ...] | None]:
    """How many maps of logits a network gives, and the number that each writes where they are regions."""
    are_regions = any(isinstance(label, list) and len(label) > 1 for label in labels.values())
    if not are_regions:
        return len(labels), None
    numbers = tuple(map(int, dataset["regions_class_order"]))
    return len(numbers), numbers


def _network(plan: dict[str, Any], channels: int, outputs: int, folder: Path) -> nnunet.Config:
    """The network of a plan, whose older form names each part by itself.

    Raises:
        FormatError: it is none of nnU-Net's own.
    """
    if "architecture" in plan:
        kind, given = plan["architecture"]["network_class_name"].rpartition(".")[2], plan["architecture"]["arch_kwargs"]
    else:
        count = len(plan["pool_op_kernel_sizes"])
        kind = plan["UNet_class_name"]
        given = {
            "strides": plan["pool_op_kernel_sizes"],
            "kernel_sizes": plan["conv_kernel_sizes"],
            "features_per_stage": [
                min(plan["UNet_base_num_features"] * 2**stage, plan["unet_max_num_features"]) for stage in range(count)
            ],
            "n_conv_per_stage": plan["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": plan["n_conv_per_stage_decoder"],
        }
    if kind not in NETWORKS:
        raise FormatError(
            f"{folder / 'plans.json'}: the network is a {kind}; {' and '.join(NETWORKS)} are known: predict with nnU-Net itself"
        )
    first, *strides = given["strides"]
    if set(first) != {1}:
        raise FormatError(
            f"{folder / 'plans.json'}: the first stride is {first}; nnU-Net's own plans begin with 1 along each axis"
        )
    return nnunet.Config(
        in_channels=channels,
        num_classes=outputs,
        axes=len(first),  # type: ignore[arg-type]  # 2 or 3
        features=tuple(given["features_per_stage"]),
        strides=tuple(tuple(stride) for stride in strides),
        kernels=tuple(tuple(kernel) for kernel in given["kernel_sizes"]),
        is_residual=NETWORKS[kind],
        encoder_depths=tuple(given.get("n_blocks_per_stage", given.get("n_conv_per_stage"))),
        decoder_depths=tuple(reversed(given["n_conv_per_stage_decoder"])),
    )
