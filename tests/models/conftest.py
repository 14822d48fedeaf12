"""What networks are held against: golden arrays, lists of published tensors, and reference networks beside ours.

Golden arrays are what the authors' code put out, for weights and inputs that a rule makes from their names alone.
Axes: B batch, C channels, H, W.
"""

import json
import math
import re
import zlib
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.box_detection import FoundBoxes
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.prompts import Prompts
from segwright.layers.region_proposals import AnchorScores

GOLDEN = Path(__file__).parent.parent / "golden"
MEAN = torch.tensor([123.675, 116.28, 103.53])  # of ImageNet; red, green, blue
AUXILIARY = 0.4  # what the second head of torchvision's networks counts in comparisons, as it does in ours
MANIFESTS = Path(__file__).parents[3] / "shared" / "parity" / "manifests"


def drawn(text: str, shape: list[int]) -> np.ndarray:
    """Normal numbers that depend on a text alone; numpy keeps this generator's stream as it is."""
    return np.asarray(np.random.RandomState(zlib.crc32(text.encode())).standard_normal(tuple(shape)), np.float64)


def made_weight(key: str, shape: list[int], seed: int, scales: dict[str, float]) -> Tensor:
    """The tensor that the rule of the golden files makes for a name and a shape."""
    values = drawn(f"{seed}:{key}", shape)
    if key.endswith("running_var"):
        values = 1 + 0.5 * abs(values)
    elif key.endswith(("running_mean", "bias")):
        values = 0.1 * values
    elif len(shape) <= 1:
        values = 1 + 0.1 * values
    elif shape[0] == 1:
        values = 0.2 * values
    else:
        values = (1.2 if len(shape) >= 4 else 1.0) * values / math.sqrt(max(1, math.prod(shape[1:])))
    for pattern, factor in scales.items():
        values = values * factor if re.search(pattern, key) else values
    return torch.from_numpy(np.ascontiguousarray(values, np.float32).reshape(shape))


class Golden:
    """One golden file by its name: its config, the weights under the authors' names, its inputs, and its outputs to equal."""

    def __init__(self, name: str) -> None:
        self.meta = json.loads((GOLDEN / f"{name}.json").read_text())
        self.arrays = load_file(GOLDEN / f"{name}.safetensors")
        self.config = self.meta["config"]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The authors' state dict."""
        if self.meta["weights"] == "stored":
            return {key[2:]: tensor for key, tensor in self.arrays.items() if key.startswith("w/")}
        recipe, counters = self.meta["recipe"], self.meta["weight_int_keys"]
        return {
            key: torch.zeros(shape, dtype=torch.int64)
            if key in counters
            else made_weight(key, shape, recipe["seed"], recipe["scales"])
            for key, shape in self.meta["weight_shapes"].items()
        }

    def input(self, name: str) -> Tensor:
        """An input; one that is not stored is drawn by the rule."""
        if f"in/{name}" in self.arrays:
            return self.arrays[f"in/{name}"]
        facts = self.meta["inputs"][name]
        assert facts["not_stored_make_with"].startswith("recipe.randn("), facts
        return torch.from_numpy(drawn(f"{self.meta['recipe']['seed']}:in:{name}", facts["shape"]).astype(np.float32))

    def check(self, depth: str, ours: Tensor) -> None:
        """See that an output equals the authors': exactly enough in float64, within the stated tolerance in float32.

        The authors' ran in float32, so that float64 may differ by as much as theirs did from their own in float64.
        """
        facts = self.meta["outputs"][depth]
        assert list(ours.shape) == facts["shape"], (depth, ours.shape)
        limits = {"rtol": 0, **self.meta["tolerance"][depth]}
        if ours.dtype == torch.float64:
            limits = {"atol": 2 * facts["f32_vs_f64_maxdiff"], "rtol": 1e-7}
        wanted = self.arrays.get(f"out/{depth}")
        got = ours.reshape(-1)[:: facts["stride"]] if wanted is None else ours
        wanted = self.arrays[f"out/{depth}@sample"] if wanted is None else wanted
        torch.testing.assert_close(got, wanted.to(ours.dtype), msg=lambda text: f"{depth}: {text}", **limits)

    def check_levels(self, network: nn.Module, rename: Callable, dtype: torch.dtype) -> None:
        """Load the weights, and see that each map of the encoder and the logits of a network on one equal the authors'."""
        network.load_state_dict(rename(self.weights))
        network.eval().to(dtype)
        image = self.input("x").to(dtype)
        with torch.no_grad():
            for number, level in enumerate(network.encoder(image), start=1):  # the first failure says where to look
                self.check(f"encoder.{number}", level)
            self.check("logits", network(image))


@pytest.fixture
def golden():
    return Golden


@pytest.fixture
def manifest():
    """The names and shapes of a published file's tensors, as empty tensors; from ../shared, which may be absent."""

    def read(name: str) -> dict[str, Tensor]:
        if not MANIFESTS.exists():
            pytest.skip("the lists of published tensors lie in ../shared/parity, which is not part of the repository")
        facts = json.loads((MANIFESTS / f"{name}.json").read_text())
        others = {key: getattr(torch, kind) for key, kind in facts.get("dtypes_not_float32", {}).items()}
        return {
            key: torch.empty(shape, dtype=others.get(key, torch.float32), device="meta")
            for key, shape in facts["tensors"].items()
        }

    return read


class Objects:
    """What networks that find objects are given and asked, beside the authors' files."""

    @staticmethod
    def truth(file: Golden, number: int) -> ObjectTruth:
        """The objects of one of detectron2's images, each in a plane of its own."""
        boxes, class_ids, masks = (file.input(f"gt_{name}{number}") for name in ("boxes", "classes", "masks"))
        return Objects.in_planes(boxes, class_ids, masks)

    @staticmethod
    def batch(file: Golden) -> tuple[Tensor, list[tuple[int, int]]]:
        """detectron2's two images, which are blue, green, red, as a batch that is padded after the mean is off; their sides."""
        images = [file.input(f"image{number}").flip(0).float() for number in (0, 1)]
        sides = [(image.shape[1], image.shape[2]) for image in images]
        padded = [max(side[axis] for side in sides) for axis in (0, 1)]
        batch = torch.zeros(2, 3, *(-(-side // 32) * 32 for side in padded))
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image - MEAN[:, None, None]
        return batch, sides

    @staticmethod
    def check_found(file: Golden, found: list[FoundBoxes], masks: Tensor, sides: list[tuple[int, int]]) -> None:
        """See that objects equal detectron2's, whose masks are pasted into images of other sides: a tenth of them are held."""
        each_mask = masks.split([len(each.boxes) for each in found])
        for number, (each, probs, inside, outside) in enumerate(
            zip(found, each_mask, sides, file.config["outputs"], strict=True)
        ):
            boxes = each.boxes * torch.tensor([outside[1] / inside[1], outside[0] / inside[0]] * 2)
            file.check(f"det{number}.boxes", boxes)
            file.check(f"det{number}.scores", each.scores)
            file.check(f"det{number}.classes", each.class_ids)
            pasted = Objects.pasted(probs, boxes, outside) >= 0.5
            file.check(f"det{number}.mask_area", pasted.sum((1, 2)))
            wanted, stride = file.arrays[f"out/det{number}.masks@sample"], file.meta["outputs"][f"det{number}.masks"]["stride"]
            wrong = pasted.flatten()[::stride] != wanted.bool()
            assert wrong.float().mean() <= file.meta["tolerance"][f"det{number}.masks"]["max_mismatch_fraction"]

    @staticmethod
    def pasted(probs: Tensor, boxes: Tensor, sides: tuple[int, int]) -> Tensor:
        """The probabilities (N, 28, 28) in their boxes of an image of some sides, sampled at its pixels' centres (N, H, W)."""
        x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
        y = ((torch.arange(sides[0]) + 0.5) - y1) / (y2 - y1) * 2 - 1
        x = ((torch.arange(sides[1]) + 0.5) - x1) / (x2 - x1) * 2 - 1
        grid = torch.stack([x[:, None, :].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])], dim=-1)
        return F.grid_sample(probs[:, None], grid, align_corners=False)[:, 0]

    @staticmethod
    def in_planes(boxes: Tensor, class_ids: Tensor, masks: Tensor) -> ObjectTruth:
        """Objects with masks (N, H, W), each in a plane of its own."""
        numbers = torch.arange(1, len(masks) + 1)[:, None, None]
        return ObjectTruth(boxes, class_ids, (masks.bool() * numbers).int())

    @staticmethod
    def check_scores(file: Golden, names: tuple[str, str], scores: list[AnchorScores], maps: list[Tensor]) -> None:
        """See that what is said of the anchors of each map equals the authors', in their layout."""
        for number, ((objectness, deltas), level) in enumerate(zip(scores, maps, strict=True)):
            grid = (*level.shape[2:], -1)
            file.check(f"{names[0]}{number}", objectness.unflatten(1, grid).permute(0, 3, 1, 2))
            file.check(f"{names[1]}{number}", deltas.unflatten(1, grid).flatten(3).permute(0, 3, 1, 2))


@pytest.fixture
def objects() -> type[Objects]:
    """How networks that find objects are held beside the authors'."""
    return Objects


class Peers:
    """A network beside its reference, both with the same weights, in float64."""

    @staticmethod
    def randomised(network: nn.Module) -> nn.Module:
        """The network in float64 with norms that must really be applied."""
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.1)
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
        return network.double()

    @staticmethod
    def train(network: nn.Module) -> nn.Module:
        """The network in training, but that nothing is left out."""
        for module in network.train().modules():
            if isinstance(module, (nn.Dropout, nn.Dropout2d)):
                module.p = 0.0
        return network

    @staticmethod
    def heads(outputs: Any, sides: tuple[int, ...]) -> list[tuple[Tensor, float]]:
        """Logits at the size of the image and what each counts: ours, torchvision's, or of a network with one head."""
        if isinstance(outputs, dict):
            terms = [(outputs["out"], 1.0), *([(outputs["aux"], AUXILIARY)] if "aux" in outputs else [])]
        elif isinstance(outputs, WithAuxiliary):
            terms = [(outputs.logits, 1.0), *zip(outputs.auxiliary, outputs.weights, strict=True)]
        else:
            terms = [(outputs, 1.0)]
        return [(F.interpolate(logits, size=sides, mode="bilinear", align_corners=False), weight) for logits, weight in terms]

    @classmethod
    def assert_equal(cls, ours: nn.Module, theirs: nn.Module, *shape: int) -> None:
        """See that both say the same of an image (B, C, H, W) in evaluation."""
        image = torch.randn(shape, dtype=torch.float64)
        with torch.no_grad():
            (mine, _), (wanted, _) = (cls.heads(network.eval()(image), shape[2:])[0] for network in (ours, theirs))
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)

    @classmethod
    def assert_equal_gradients(cls, ours: nn.Module, theirs: nn.Module, rename: Callable, *shape: int) -> None:
        """See that both learn the same of an image (B, C, H, W), also from their auxiliary heads."""
        image = torch.randn(shape, dtype=torch.float64)
        for network in (ours, theirs):
            terms = cls.heads(cls.train(network)(image), shape[2:])
            sum(weight * logits.square().mean() for logits, weight in terms).backward()
        wanted = rename({name: one.grad for name, one in theirs.named_parameters() if one.grad is not None})
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-6, atol=1e-9, msg=partial("{}: {}".format, name))

    @classmethod
    def assert_equal_training(
        cls, ours: nn.Module, theirs: nn.Module, *shape: int, classes: int, rate: float = 0.01, momentum: float = 0.9
    ) -> None:
        """See that the losses of twenty steps of stochastic gradient descent on images (B, C, H, W) of noise are the same."""
        generator, curves = torch.Generator().manual_seed(0), []
        images = torch.randn(20, *shape, dtype=torch.float64, generator=generator)
        truths = torch.randint(0, classes, (20, shape[0], *shape[2:]), generator=generator)
        for network in (ours, theirs):
            optimiser = torch.optim.SGD(cls.train(network).parameters(), lr=rate, momentum=momentum)
            curve = []
            for image, truth in zip(images, truths, strict=True):
                terms = cls.heads(network(image), shape[2:])
                loss = sum(weight * F.cross_entropy(logits, truth) for logits, weight in terms)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                curve.append(loss.item())
            curves.append(curve)
        assert curves[0] == pytest.approx(curves[1], rel=1e-6)
        assert len(set(curves[0])) == 20


@pytest.fixture
def peers() -> type[Peers]:
    """How a network is held beside its reference."""
    return Peers


@pytest.fixture
def smp():
    """segmentation_models_pytorch, where it is installed."""
    return pytest.importorskip("segmentation_models_pytorch", reason="the live comparison needs segmentation_models_pytorch")


@pytest.fixture
def check_prompted():
    def check(ours: nn.Module, theirs: nn.Module, image: Tensor) -> None:
        """See that SAM 2's answers to all kinds of prompts, several of an image (1, 3, S, S), are Hugging Face's."""
        points, boxes = (image.shape[2] * torch.rand(shape, dtype=torch.float64) for shape in ((1, 3, 2, 2), (1, 3, 4)))
        labels, masks = torch.tensor([[[1, 0], [0, 0], [1, -1]]]), 4 * torch.randn(1, 1, 32, 32, dtype=torch.float64)
        asked = {
            "points": (Prompts(points + 0.5, labels), {"input_points": points, "input_labels": labels}),
            "box": (Prompts(boxes_xyxy=boxes + 0.5), {"input_boxes": boxes}),
            "mask": (
                Prompts(points[:, :1] + 0.5, labels[:, :1], mask_logits=masks),
                {"input_points": points[:, :1], "input_labels": labels[:, :1], "input_masks": masks},
            ),
        }
        limits = {"rtol": 1e-6, "atol": 1e-6}
        with torch.no_grad():
            embedding = ours.encode(image)
            for kind, (prompts, parts) in asked.items():
                for multimask in (True, False):
                    wanted = theirs(image, **parts, multimask_output=multimask)
                    answer = ours.decode(embedding, prompts, multimask=multimask)
                    for found, expected in ((answer.mask_logits, wanted.pred_masks), (answer.scores, wanted.iou_scores)):
                        torch.testing.assert_close(found, expected, msg=lambda text, at=kind: f"{at}: {text}", **limits)

    return check
