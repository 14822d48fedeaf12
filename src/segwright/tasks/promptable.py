"""Promptable segmentation: an object that somebody points at becomes a mask, and clicks mend it.

A network learns from people who are simulated, as in Segment Anything (Kirillov et al. 2023, arXiv 2304.02643, appendix A): a
random point on an object, a box that is not quite right, or a mask to refine with a click; then clicks where the answer is
still wrong, each with the answer before as an earlier mask. One point alone may mean a thing or a part of it: of the three
answers to it the best alone is pulled at. All other prompts have one answer. Each mask also says how well it expects to fit.

Only the last answer of a dialogue teaches, and how many clicks come before it is drawn, as in RITM (Sofiiuk et al. 2022, doi
10.1109/ICIP46576.2022.9897365): answers to one object are much alike, and another object teaches more for the same time.

Truth and answers are compared on the grid of the answers, where a pixel of the truth is the share of it that is covered: a
network that gets these right has borders in their place when its answer is enlarged, and the image is 16 times larger.

Axes: B batch, C channels, P prompts of an image, N points of a prompt, M answers to it, H, W sides of the image, h, w of masks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.data.clickable_objects import SMALLEST, clickable_objects
from segwright.data.fingerprint import Fingerprint
from segwright.data.simulated_clicks import drawn_box, next_click
from segwright.decoding.run import Outputs, Run
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.prompts import SURE, PromptedMasks, Prompts
from segwright.models import check_task, preset
from segwright.tasks import Batch
from segwright.tasks.instance import Instance, batch_of_truths
from segwright.transforms.prepare import View

NETWORKS = ("sam_nano",)
OBJECTS = {"point": 5, "box": 2, "mask": 1}  # of each image in a step, by what is said first: the encoder saw the image once
CLICKS = {"point": (0, 0, 1, 2, 3), "box": (0, 1), "mask": (0,)}  # after it, as likely each, before the answer that teaches
FINER = 4  # times the sides of the embedding are those of masks
THICKER, MOVED = 0.3, 0.05  # of its size, by how much at most a mask to refine is too thick or thin, and how far it has moved
FOCAL_WEIGHT = 20.0  # beside Dice and the error of the score, which weigh 1, as in Segment Anything
GAMMA, ALPHA = 2.0, 0.25  # of the focal loss, as published (Lin et al. 2017, arXiv 1708.02002)
INSET = np.array([0.5, 0.5, -0.5, -0.5], np.float32)  # from the edges of a box to the outermost pixels, which networks know
SMOOTH = 1.0  # pixel of the answer, in Dice: an object may cover less than one
SEEDS = 2**31  # of generators on the CPU, drawn from that of the device


@dataclass(frozen=True, kw_only=True)
class Promptable:
    """Networks with `encode` and `decode`, which answer `Prompts` with `PromptedMasks`."""

    score: ClassVar[str] = "IoU@3"
    metrics: ClassVar[tuple[str, ...]] = ("IoU@1", "IoU@3", "IoU@5")
    stays: ClassVar[str] = "encoder"

    @classmethod
    def planned(cls, found: Fingerprint) -> "tuple[Promptable, dict[str, str]]":
        """The task, which has nothing to choose."""
        return cls(), {}

    def candidates(self, found: Fingerprint, *, from_scratch: bool) -> list[Any]:
        """The click network of this package, whose encoder starts from ImageNet where its weights lie here."""
        return [preset(name) for name in NETWORKS]

    def fitted(self, network: Any, channels: int, classes: Classes) -> Any:
        """The config with as many channels in; classes do not matter.

        Raises:
            SettingError: the network is for another task.
        """
        check_task(network, "promptable")
        return replace(network, in_channels=channels)

    def dataset(self, data: Dataset) -> Dataset:
        """The data set, whose truth is whatever could be clicked on."""
        return clickable_objects(data)

    def target(self, crop: Sample) -> ObjectTruth:
        """The objects of a crop, in numpy; one of which the crop shows no pixel is not among them.

        Raises:
            UsageError: the sample has no truth, or is a volume.
        """
        if crop.truth is not None and len(crop.truth.shape) != 2:
            raise UsageError(
                f"sample {crop.key!r} is a volume {crop.truth.shape}, and promptable networks see images; give its slices as "
                "images, or learn the class of each voxel with --task semantic"
            )
        return Instance().target(crop)

    def collate(self, crops: Sequence[tuple[str, np.ndarray, ObjectTruth]]) -> Batch:
        """Images float32 (B, C, H, W) and the objects of each."""
        return batch_of_truths(crops)

    def loss(self, network: Any, batch: Batch, generator: torch.Generator) -> Mapping[str, Tensor]:
        """The terms "focal", "dice" and "score", means over objects and prompts; 0 for a batch without an object."""
        drawn = torch.randint(SEEDS, (1,), generator=generator, device=generator.device)
        rng = np.random.default_rng(int(drawn))
        wanted = _Wanted.drawn(batch.target, rng)
        embedding = network.encode(batch.image)
        sides = tuple(FINER * side for side in embedding.shape[2:])
        grids = (_on_grid(part, sides, embedding.device) for part in (wanted.masks & wanted.is_known, wanted.is_known))
        truth, terms, start = _Truth(*grids), list[tuple[Tensor, Tensor, Tensor]](), 0
        for kind, count in OBJECTS.items():
            some = slice(start, start + count)
            asked = _Truth(truth.covered[:, some], truth.known[:, some])
            terms.append(_terms(_last_answer(network, embedding, wanted.masks[:, some], asked, kind, rng), asked))
            start += count
        weights = wanted.weights.to(embedding.device)
        total = weights.sum().clamp(min=1)
        means = [(weights * torch.cat(parts, dim=1)).sum() / total for parts in zip(*terms, strict=True)]
        return dict(zip(("focal", "dice", "score"), means, strict=True))

    def decode(self, run: Run, view: View) -> Segmentation:
        """Nothing: such a network answers prompts.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "this network answers prompts, points, boxes and masks, and finds nothing by itself; ask it with segwright segment "
            "(in Python with segwright.inference.prompting), or measure it with segwright evaluate"
        )

    def agreement(self, outputs: Outputs, reference: Outputs, shape: tuple[int, ...]) -> float:
        """The part of the pixels of the answers that lie on the same side of 0."""
        return float(np.mean((outputs[0] > 0) == (reference[0] > 0)))


class _Wanted(NamedTuple):
    """What objects are pointed at: masks and what is known bool (B, P, H, W) on the CPU, and whether there is one (B, P)."""

    masks: np.ndarray
    is_known: np.ndarray
    weights: Tensor

    @classmethod
    def drawn(cls, truths: Sequence[ObjectTruth], rng: np.random.Generator) -> "_Wanted":
        """Objects of each image, in random order and again if they are few; those of an image without any are empty.

        Those count of which enough is seen.
        """
        planes = [truth.planes.cpu().numpy() for truth in truths]
        shape = (len(truths), sum(OBJECTS.values()), *planes[0].shape[1:])
        masks, is_known, weights = np.zeros(shape, bool), np.ones(shape, bool), torch.zeros(shape[:2])
        for image, (truth, plane) in enumerate(zip(truths, planes, strict=True)):
            is_known[image] = (plane >= 0).all(axis=0)
            areas = np.bincount(plane.reshape(-1) + 1, minlength=len(truth.boxes) + 2)[2:]  # those of void and nothing first
            seen = np.flatnonzero(areas >= SMALLEST)
            if not len(seen):
                continue
            for place, index in enumerate(np.resize(rng.permutation(seen), shape[1])):
                masks[image, place] = (plane == index + 1).any(axis=0)
                is_known[image, place] |= masks[image, place]  # it is there, whatever else may be
            weights[image] = 1
        return cls(masks, is_known, weights)


class _Truth(NamedTuple):
    """Objects on the grid of answers: the share of each pixel that they cover, and the share that is known, (B, P, h, w)."""

    covered: Tensor
    known: Tensor


def _last_answer(
    network: Any, embedding: Tensor, masks: np.ndarray, truth: _Truth, kind: str, rng: np.random.Generator
) -> PromptedMasks:
    """The last answer of a dialogue about masks bool (B, P, H, W); it has gradients, and those before have none."""
    device, covered, known = embedding.device, truth.covered.cpu().numpy() > 0.5, truth.known.cpu().numpy() > 0.5
    step = np.array(masks.shape[:1:-1], np.float32) / covered.shape[:1:-1]  # pixels for one of an answer, (x, y)
    points, labels = np.zeros((*covered.shape[:2], 0, 2), np.float32), np.zeros((*covered.shape[:2], 0), np.int64)
    boxes = earlier = None
    if kind == "point":
        points, labels = _clicked(points, labels, masks, rng)
    elif kind == "box":
        boxes = torch.from_numpy(_boxes(masks, rng)).to(device)
    else:
        earlier = SURE * (2 * _on_grid(_deformed(masks, rng), covered.shape[2:], device) - 1)
    for left in range(int(rng.choice(CLICKS[kind])), -1, -1):
        if earlier is not None:
            wrong = (earlier.float().cpu().numpy() > 0, known)
            points, labels = _clicked(points / step, labels, covered, rng, wrong)
            points *= step
        places, said = (torch.from_numpy(part).to(device) if points.shape[2] else None for part in (points, labels))
        is_first_point = kind == "point" and earlier is None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not left):
            answer = network.decode(embedding, Prompts(places, said, boxes, earlier), multimask=is_first_point)
        best = answer.scores.argmax(dim=2)[:, :, None, None, None].expand(-1, -1, 1, *answer.mask_logits.shape[3:])
        earlier = answer.mask_logits.detach().gather(2, best)[:, :, 0]
    return answer


def _clicked(
    points: np.ndarray,
    labels: np.ndarray,
    truth: np.ndarray,
    rng: np.random.Generator,
    seen: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Points (B, P, N + 1, 2) and labels (B, P, N + 1) with another click each, for a truth bool (B, P, h, w).

    It lies about the deepest error of masks that are `seen`, given with what is known; where there is none, no point, -1,
    follows. Before any was seen, it lies anywhere on the object.
    """
    more, said = np.zeros((*labels.shape[:2], 1, 2), np.float32), np.full((*labels.shape[:2], 1), -1, np.int64)
    for at in np.ndindex(*labels.shape[:2]):
        if seen is not None:
            click = next_click(seen[0][at], truth[at], seen[1][at], rng)
        else:
            pixels = np.argwhere(truth[at])
            click = (tuple(rng.choice(pixels)[::-1] + 0.5), True) if len(pixels) else None
        if click is not None:
            more[at][0], said[at][0] = click[0], int(click[1])
    return np.concatenate([points, more], axis=2), np.concatenate([labels, said], axis=2)


def _boxes(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The corners of boxes drawn around masks (B, P, H, W), float32 (B, P, 4); of no mask, those of the image."""
    H, W = masks.shape[2:]
    boxes = np.tile(np.array([0, 0, W, H], np.float32), (*masks.shape[:2], 1))
    for image, place in np.ndindex(*masks.shape[:2]):
        if masks[image, place].any():
            boxes[image, place] = drawn_box(masks[image, place], rng)
    return boxes + INSET


def _deformed(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Masks (B, P, H, W) as an earlier answer of somebody else may be: thicker or thinner, and moved a little."""
    found = masks.astype(np.uint8)
    for at in np.ndindex(*masks.shape[:2]):
        size = np.sqrt(masks[at].sum())
        kernel = np.ones((1 + int(rng.uniform(0, THICKER) * size),) * 2, np.uint8)
        change = cv2.dilate if rng.random() < 0.5 else cv2.erode
        moved = np.array([[1, 0, rng.normal() * MOVED * size], [0, 1, rng.normal() * MOVED * size]], np.float32)
        found[at] = cv2.warpAffine(change(found[at], kernel), moved, masks.shape[:1:-1], flags=cv2.INTER_NEAREST)
    return found > 0


def _on_grid(masks: np.ndarray, sides: tuple[int, ...], device: torch.device) -> Tensor:
    """The share of each pixel of a coarser grid that masks bool (B, P, H, W) cover, float32 (B, P, h, w)."""
    return F.interpolate(torch.from_numpy(masks.astype(np.float32)).to(device), sides, mode="area")


def _terms(answer: PromptedMasks, truth: _Truth) -> tuple[Tensor, Tensor, Tensor]:
    """Focal loss, Dice loss and the squared error of the scores of each prompt (B, P): of the best of its answers, of all."""
    logits = answer.mask_logits.float()
    covered, known = truth.covered[:, :, None], truth.known[:, :, None]  # (B, P, 1, h, w)
    focal = FOCAL_WEIGHT * (_focal(logits, covered, known).flatten(3).sum(3) / known.flatten(3).sum(3).clamp(min=1))
    probs = logits.sigmoid() * known
    overlap, size = (probs * covered).flatten(3).sum(3), (probs + covered).flatten(3).sum(3)  # (B, P, M)
    dice = 1 - (2 * overlap + SMOOTH) / (size + SMOOTH)
    with torch.no_grad():
        shared, either = torch.minimum(probs, covered), torch.maximum(probs, covered)
        iou = shared.flatten(3).sum(3) / either.flatten(3).sum(3).clamp(min=SMOOTH)
        best = (focal + dice).argmin(dim=2, keepdim=True)
    error = (answer.scores.float() - iou).square().mean(dim=2)
    return focal.gather(2, best)[:, :, 0], dice.gather(2, best)[:, :, 0], error


def _focal(logits: Tensor, covered: Tensor, known: Tensor) -> Tensor:
    """The focal loss of each pixel (B, P, M, h, w), part of which may be covered, times the share of it that is known."""
    probs = logits.sigmoid()
    inside = ALPHA * (1 - probs) ** GAMMA * F.logsigmoid(logits)
    outside = (1 - ALPHA) * probs**GAMMA * F.logsigmoid(-logits)
    return -(covered * inside + (known - covered) * outside)
