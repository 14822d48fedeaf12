"""A promptable network asked about an image: what a person says of an object becomes its mask, in pixels of the image.

An image is encoded once, when it is opened; each prompt then costs a pass of the small decoder. As its authors trained Segment
Anything, an image is resized until its longer side fills the network's, normalised, and padded with zeros to the right and
below. One point alone may mean a thing, a part of it or a part of that: the network then answers thrice, and the mask counts
that it thinks fits best. Anything more tells what is meant, and has one answer.

Answers are brought bilinearly to the pixels of the image in one step. The authors take two, over the sides that the network
saw, which comes to the same where an image has these sides, and differs in a few pixels of a border elsewhere.

Axes: C channels, H, W sides of the image, N prompts, P points, M answers to a prompt, h, w sides of the network's masks.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segwright.checkpoints.fill import fill
from segwright.checkpoints.named_weights import named_weights
from segwright.core import Classes, Prompt, Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.core.missing import where_measured
from segwright.core.prompt import check_prompts, check_within
from segwright.core.visualise import as_rgb
from segwright.core.warn_once import warn_once
from segwright.core.weights import Intake
from segwright.decoding.logit_runs import runs_of_logits
from segwright.decoding.mask_runs import MaskRuns
from segwright.decoding.query_pixels import Place
from segwright.decoding.upsample_argmax import places
from segwright.inference.embedding_cache import EmbeddingCache, image_digest
from segwright.inference.embedding_engine import embedding_engine
from segwright.inference.engine import AutoEngine
from segwright.inference.engine_cache import network_digest
from segwright.inference.load import load
from segwright.inference.predictor import Predictor
from segwright.layers.prompts import SURE, PromptedMasks, Prompts
from segwright.models import preset, published, tasks_of
from segwright.transforms.prepare import Preprocess
from segwright.transforms.resize import resize_image, scaled

log = logging.getLogger(__name__)

_CLASSES = Classes.of(["object"])
TASK = "promptable"  # what networks that answer prompts are for
SIDE = 1024  # pixels of the longer side, with which Segment Anything was trained
WHITE = 255  # the highest value of the images that published networks take
FINER = 4  # pixels of what the network sees for one of its masks


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompter:
    """A promptable network, in evaluation, and how images reach it: values 0 to 255, longer sides of `side` pixels.

    With the `predictor` of the run which trained it, images reach it as they did in training, and `side` is the most that their
    longer sides may have.
    """

    network: Any
    intake: Intake = Intake()
    side: int = SIDE
    predictor: Predictor | None = None
    cache: EmbeddingCache | None = None  # of embeddings of earlier calls; without one, each image is encoded anew

    def __post_init__(self) -> None:
        step = max(self.network.divisors)
        if self.side < step or self.side % step:
            raise SettingError(
                f"side is {self.side}; this network takes sides that are multiples of {step}, such as {64 * step}"
            )

    def open(self, image: Sample | np.ndarray) -> "PromptSession":
        """The session of an image (C, H, W), which is encoded now, with values of 0 to 255, or as the predictor was trained on.

        Raises:
            ShapeError: the image has other axes or channels than the network takes, or values that are not 0 to 255.
        """
        pixels = image.image if isinstance(image, Sample) else image
        check_pixels(pixels)
        channels = len(self.intake.mean) if self.predictor is None else len(pixels)  # which it brings to its own
        if pixels.ndim != 3 or len(pixels) != channels or 0 in pixels.shape:
            raise ShapeError(
                f"the image is {pixels.shape}; ({channels}, H, W) is needed, channels first and no empty axis: give "
                "np.moveaxis(image, -1, 0), and a grey image repeated for each channel"
            )
        if self.predictor is None:
            check_8_bit(pixels)
            values, seen = self._filled(pixels)
        else:
            sample = replace(image, truth=None) if isinstance(image, Sample) else Sample.of("", pixels)
            values, seen = self._as_trained(sample, self.predictor.preprocess)
        height, width = pixels.shape[1:]
        return PromptSession(prompter=self, embedding=self._embedding(values), shape=(height, width), seen=seen)

    def open_sample(self, sample: Sample) -> "PromptSession":
        """The session of a sample whose image (C, H, W) is in the values of its file, whatever these are.

        Raises:
            ShapeError: as `on_scale` and `open`.
        """
        return self.open(self.on_scale(sample))

    def on_scale(self, sample: Sample) -> Sample:
        """A sample in the values of its file as `open` takes it: on the scale of the run which trained the network, if one did.

        Else in colours of 8 bits: grey in each channel, of several channels the first three, more bits stretched between the
        1st and the 99th percentile, black where nothing was measured.

        Raises:
            ShapeError: it is a volume.
        """
        check_flat(sample)
        if self.predictor is not None:
            return self.predictor.on_scale(sample)
        if sample.image.shape[0] not in (1, 3):
            warn_once(
                log,
                "%s has %d channels, and this network sees three: %s; save the channels that it should see as a picture",
                *(sample.key, len(sample.image), "the first three" if len(sample.image) > 3 else "the first, as grey"),
            )
        return replace(sample, image=np.ascontiguousarray(np.moveaxis(as_rgb(sample.image), -1, 0)))

    def _embedding(self, values: np.ndarray) -> Tensor:
        """The embedding (1, E, h, w) of what the network is shown (C, H, W); from the cache if it is there."""
        place = (self._digest, image_digest(values)) if self.cache is not None else None
        if self.cache is not None and place is not None and (known := self.cache.recall(*place)) is not None:
            return known.to(self._device)
        embedding = torch.from_numpy(np.array(self.engine(values[None])[0])).to(self._device)
        if self.cache is not None and place is not None:
            self.cache.remember(*place, embedding)
        return embedding

    @cached_property
    def engine(self) -> AutoEngine:
        """What encodes images; how many are to come may be told it (`ahead`), so that it looks for the quickest way."""
        return embedding_engine(self.network)

    @cached_property
    def _digest(self) -> str:
        return network_digest(self.network)

    def _filled(self, pixels: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
        """An image as networks were trained, and what of that it fills.

        Most know one size, and see a square of which it fills all for SAM 2, else the longer side. Others see it as large as it
        is, up to that size, and no more beside it than their strides make of it.
        """
        factors, sides = tuple(self.side / side for side in pixels.shape[1:]), (self.side,) * 2
        knows_all = getattr(self.network, "knows_all_sides", False)
        if not getattr(self.network, "fills_squares", False):
            factors = (min(*factors, *[1.0] * knows_all),) * 2
        seen = scaled(pixels.shape[1:], factors)
        if knows_all:
            sides = tuple(-(-side // step) * step for side, step in zip(seen, self.network.divisors, strict=True))
        mean, std = (np.array(part, np.float32)[:, None, None] for part in (self.intake.mean, self.intake.std))
        values = np.zeros((len(pixels), *sides), np.float32)
        values[:, : seen[0], : seen[1]] = (resize_image(pixels, seen) - mean) / std
        return values, seen

    def _as_trained(self, sample: Sample, preprocess: Preprocess) -> tuple[np.ndarray, tuple[int, ...]]:
        """An image as a run of this package was trained, padded to sides that the network takes, and what of these it fills."""
        if max(preprocess.shape_of(sample.grid, sample.key)) > self.side:
            preprocess = replace(preprocess, scale=(self.side / max(sample.grid.shape),) * 2, spacing_mm=None)
        view = preprocess(sample)
        padded = view.padded(
            tuple(-(-side // step) * step for side, step in zip(view.covered, self.network.divisors, strict=True))
        )
        return np.ascontiguousarray(padded.image, np.float32), view.covered

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptSession:
    """One image that prompts are about: its embedding, its `shape` (H, W), and what of the network's image it fills, `seen`.

    The last answer for each `object_id` is remembered: a prompt whose mask is that answer refines what the network said, and
    not only its outline.
    """

    prompter: Prompter
    embedding: Tensor
    shape: tuple[int, int]
    seen: tuple[int, ...]
    _answers: dict[int, tuple[MaskRuns, Tensor]] = field(default_factory=dict)

    def segment(self, *prompts: Prompt) -> Segmentation:
        """The objects that prompts point at, in their order: masks, which may overlap, with the scores that they expect.

        Prompts with as many points, and the same other parts, are answered together.

        Raises:
            UsageError: there is no prompt, one has a text, which this network does not read, or two are about one object.
            ShapeError: a point or a box lies outside the image, or a mask has another shape.
        """
        if not prompts:
            raise UsageError("there is no prompt; give at least one, such as Prompt(box_xyxy=np.array([10, 20, 200, 150]))")
        check_prompts(prompts)
        groups: dict[tuple, list[int]] = {}
        for index, prompt in enumerate(prompts):
            self._check(prompt)
            groups.setdefault(_kind(prompt), []).append(index)
        logits, scores = [self.embedding] * len(prompts), np.zeros(len(prompts), np.float32)
        for indices in groups.values():
            answer = self.ask([prompts[index] for index in indices], multimask=_is_ambiguous(prompts[indices[0]]))
            best = answer.scores.argmax(dim=2)[0].tolist()
            for row, index in enumerate(indices):
                logits[index] = answer.mask_logits[0, row, best[row]]
                scores[index] = float(answer.scores[0, row, best[row]])
        masks = self._runs(torch.stack(logits))
        for index, prompt in enumerate(prompts):
            self._answers[prompt.object_id] = masks.taken(np.array([index])), logits[index]
        return objects_of(masks, scores, self.shape, [prompt.object_id for prompt in prompts])

    def candidates(self, prompt: Prompt) -> Segmentation:
        """The three masks that a prompt may mean, the one of the highest score first.

        Raises:
            UsageError: the prompt has a text, which this network does not read.
            ShapeError: a point or a box lies outside the image, or a mask has another shape.
        """
        check_prompts([prompt])
        self._check(prompt)
        answer = self.ask([prompt], multimask=True)
        order = answer.scores[0, 0].argsort(descending=True)
        scores = answer.scores[0, 0, order].float().cpu().numpy()
        return objects_of(self._runs(answer.mask_logits[0, 0, order]), scores, self.shape, range(1, 1 + len(order)))

    @property
    def place(self) -> Place:
        """Where the pixels of the image lie in the logits of masks (h, w)."""
        sides = (4 * self.embedding.shape[2], 4 * self.embedding.shape[3])  # a network's masks are four times its embedding
        rows, columns = (
            places(size, count, (0.0, seen / FINER)) for size, count, seen in zip(self.shape, sides, self.seen, strict=True)
        )
        return Place((0, 0), rows, columns)

    def _runs(self, logits: Tensor) -> MaskRuns:
        """The masks of logits (N, h, w), in pixels of the image."""
        return runs_of_logits(logits.float().cpu().numpy(), self.place)[0]

    def ask(self, prompts: Sequence[Prompt], *, multimask: bool) -> PromptedMasks:
        """The network's answers (1, N, M, ...) to prompts of one kind: with as many points, and the same other parts."""
        device, step = self.embedding.device, torch.tensor([self.seen[1] / self.shape[1], self.seen[0] / self.shape[0]])
        points = labels = boxes = masks = None
        if prompts[0].points_xy is not None:
            points = torch.from_numpy(np.stack([prompt.points_xy for prompt in prompts])).float() * step  # type: ignore[misc]
            flags = np.stack([np.asarray(prompt.is_foreground, np.int64) for prompt in prompts])
            points, labels = points[None].to(device), torch.from_numpy(flags)[None].to(device)
        if prompts[0].box_xyxy is not None:
            corners = torch.from_numpy(np.stack([prompt.box_xyxy for prompt in prompts])).float()  # type: ignore[misc]
            inset = torch.tensor([0.5, 0.5, -0.5, -0.5])  # the authors' corners are the outermost pixels of an object
            boxes = ((corners + inset) * step.repeat(2))[None].to(device)
        if prompts[0].mask is not None:
            masks = torch.stack([self._earlier(prompt) for prompt in prompts])[None]
        with torch.inference_mode():
            return self.prompter.network.decode(self.embedding, Prompts(points, labels, boxes, masks), multimask=multimask)

    def _earlier(self, prompt: Prompt) -> Tensor:
        """The logits (h, w) of an earlier mask (H, W): those of the last answer if the mask is that, else sure ones."""
        mask = np.asarray(prompt.mask, bool)
        remembered, logits = self._answers.get(prompt.object_id, (None, None))
        if logits is not None and remembered is not None and np.array_equal(remembered.painted(self.shape) > 0, mask):
            return logits
        h, w = 4 * self.embedding.shape[2], 4 * self.embedding.shape[3]
        filled = (max(1, round(self.seen[0] / FINER)), max(1, round(self.seen[1] / FINER)))
        share = torch.from_numpy(resize_image(mask[None].astype(np.float32), filled)).to(self.embedding.device)
        return F.pad(SURE * (2 * share - 1), (0, w - filled[1], 0, h - filled[0]), value=-SURE)[0]

    def _check(self, prompt: Prompt) -> None:
        """See that a prompt is about this image, and of a kind that the network knows."""
        if prompt.text is not None:
            raise UsageError(
                f"the prompt says {prompt.text!r}, and this network reads no text; give points, a box or a mask, "
                "or find it with segment_text (segwright segment --text)"
            )
        check_within(prompt, self.shape)


def check_flat(sample: Sample) -> None:
    """See that a sample is an image (C, H, W).

    Raises:
        ShapeError: it is a volume.
    """
    if sample.image.ndim != 3:
        raise ShapeError(
            f"it is a volume {sample.image.shape[1:]}, and prompts are about images; save one slice of it as an image"
        )


def check_pixels(pixels: np.ndarray, what: str = "the image") -> None:
    """See that an image or a frame, which messages call `what`, is an array of numbers.

    Raises:
        ShapeError: it is something else.
    """
    if not isinstance(pixels, np.ndarray) or pixels.dtype.kind not in "biuf":
        kind = f"an array of {pixels.dtype}" if isinstance(pixels, np.ndarray) else f"a {type(pixels).__name__}"
        raise ShapeError(f"{what} is {kind}; give an array of numbers, channels first: np.asarray(picture) and np.moveaxis")


def check_8_bit(pixels: np.ndarray, what: str = "the image") -> None:
    """See that an image or a frame (C, H, W) has the values that published networks take.

    Raises:
        ShapeError: one is missing, below 0 or above 255.
    """
    if pixels.dtype == np.uint8:
        return
    if where_measured(pixels) is not None:
        raise ShapeError(f"{what} has values that are no numbers (NaN, infinite); give np.nan_to_num(image), or mend them")
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > WHITE:
        raise ShapeError(
            f"{what} has values from {low:g} to {high:g}, and this network takes 0 to 255; stretch them to these, as "
            "open_sample does with an image of any kind"
        )


def objects_of(
    masks: MaskRuns,
    scores: np.ndarray,
    shape: tuple[int, int],
    object_ids: Sequence[int],
    *,
    class_ids: np.ndarray | None = None,
    classes: Classes = _CLASSES,
) -> Segmentation:
    """Masks that may overlap, with scores (N,) and numbers, as the objects of an image (H, W); all "object" if none is told."""
    return Segmentation(
        planes=masks.planes(shape),
        class_ids=np.zeros(len(masks), np.int32) if class_ids is None else class_ids.astype(np.int32),
        instance_ids=np.asarray(object_ids, np.int32),
        scores=np.clip(scores, 0, 1).astype(np.float32),
        classes=classes,
    )


def open_prompter(
    name: str | Path,
    *,
    weights: str | None = None,
    online: bool = False,
    own_modules: bool = False,
    values: tuple[float, float] | None = None,
) -> Prompter:
    """A promptable network: that of a run's folder, or one by its published name, such as "sam_vit_b".

    The latter takes the `weights` of a file or a name, or those that were published for it; `segwright models` lists names.
    `online` lets weights be fetched, `own_modules` lets a run name modules outside segwright, `values` are those of its
    predictor.

    Raises:
        UnknownNameError: there is no such network.
        SettingError: it answers no prompts, or values are given for no run.
        UsageError: weights are not on this machine, or do not fill the network.
        FormatError: the folder holds no run of segwright.
    """
    if weights is None and Path(name).exists():
        predictor = replace(load(name, own_modules=own_modules), values=values)
        return replace(prompter_of(predictor), cache=EmbeddingCache())
    name = str(name)
    if values is not None:
        raise SettingError(
            f"values are {values[0]:g} and {values[1]:g}, and {name} takes images stretched to 8 bits, whatever they hold; "
            "leave them out"
        )
    config = preset(name)
    if tasks_of(config)[0] != TASK:
        raise SettingError(f"{name} answers no prompts; open it with segwright.load, or name another, such as 'sam_vit_b'")
    given, network = named_weights(weights or published_for(name), online=online), config.build()
    left = fill(network, given.tensors, source=given.source)
    if left:
        raise UsageError(f"{given.source} does not fill {name}: {'; '.join(left)}; give weights of all of it")
    intake = given.facts.intake if given.facts is not None else Intake()
    return Prompter(network=network.eval(), intake=intake, side=getattr(network, "side", SIDE), cache=EmbeddingCache())


def published_for(name: str) -> str:
    """The name of the weights that were published for a network, the first of several.

    Raises:
        UsageError: there are none.
    """
    found = [key for key, weights in published().items() if weights.preset == name]
    if not found:
        raise UsageError(f"nobody has published weights for {name}; give a file of them with weights (--weights in a command)")
    return found[0]


def answers_prompts(predict: Any) -> TypeGuard[Predictor]:
    """Whether something is the predictor of a network that answers prompts, and finds nothing by itself."""
    return isinstance(predict, Predictor) and getattr(predict.network, "OUTPUT", "") == "prompted_masks"


def prompter_of(predictor: Predictor) -> Prompter:
    """The network of a run, which `load` gives, as its prompter: images reach it as in training.

    Raises:
        SettingError: the network answers no prompts.
    """
    if not answers_prompts(predictor):
        raise SettingError(
            f"the model is a {type(predictor.network).__name__}, which answers no prompts; train one that does with: "
            "segwright fit DATA --task promptable"
        )
    network: Any = predictor.network
    step = max(network.divisors)
    side = -(-max(predictor.tile or (SIDE,)) // step) * step
    return Prompter(network=network, side=side, predictor=predictor)


def opener_of(predictor: Predictor) -> Callable[[Sample], PromptSession]:
    """What opens samples in the values of their files for prompts to the network of a run.

    Raises:
        SettingError: as `prompter_of`.
    """
    return prompter_of(predictor).open_sample


def _kind(prompt: Prompt) -> tuple:
    """What prompts must have in common to be answered together."""
    count = -1 if prompt.points_xy is None else len(prompt.points_xy)
    return count, prompt.box_xyxy is None, prompt.mask is None


def _is_ambiguous(prompt: Prompt) -> bool:
    """Whether a prompt may mean several things: one point and nothing else."""
    return prompt.box_xyxy is None and prompt.mask is None and prompt.points_xy is not None and len(prompt.points_xy) == 1
