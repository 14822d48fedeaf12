"""What texts name in an image, found by an open-vocabulary network of transformers: boxes, or masks, of a class for each text.

OWL-ViT (arXiv 2205.06230), OWLv2 (2306.09683) and Grounding DINO (2303.05499) give boxes. CLIPSeg (2112.10003) gives a map of
how likely each pixel is meant; each connected piece above the threshold becomes a box. SAM 3 (2511.16719) gives masks by
itself. These networks and how they read images and texts are the code of transformers (Apache-2.0), not ours; texts reach them
as they are written, Grounding DINO's in small letters with a full stop, as it was trained.

Axes: K texts, N objects, Q guesses of a network, H, W sides of the image, h, w of a map.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import punctuation, whitespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_convert

from segwright.core.errors import SettingError, UsageError
from segwright.layers.suppression import suppress
from segwright.metrics.connected_components import connected_components
from segwright.transforms.resize import resize_image, scaled

log = logging.getLogger(__name__)

LONGEST = 1536  # pixels of a side; these networks see up to 1333
SAME_IOU = 0.5  # of two boxes of one text: they are about one object, as in Pascal VOC
MOST_OBJECTS = 300  # of an image; more is nothing that anybody named
LEAST_PIXELS = 16  # of a map of CLIPSeg's, below which a piece is noise


@dataclass(frozen=True, eq=False)
class TextObjects:
    """N objects, the surest first: `boxes_xyxy` float32 (N, 4) in pixels of the image, `class_ids` int64 (N,) of their texts.

    `scores` float32 (N,) say how sure the network is that the text names them. `masks` bool (N, H, W) are there where it gives
    masks itself.
    """

    boxes_xyxy: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, eq=False)
class TextDetector:
    """A network of transformers, in evaluation, with its processor; `kind` is the model type that its config.json names."""

    network: Any
    processor: Any
    kind: str

    @property
    def least_score(self) -> float:
        """The score up to which guesses are left out, if nobody says another."""
        return KINDS[self.kind].least_score

    @property
    def gives_masks(self) -> bool:
        """Whether it needs no promptable network behind it."""
        return KINDS[self.kind].gives_masks

    @torch.inference_mode()
    def find(self, picture: np.ndarray, texts: Sequence[str], *, min_score: float | None = None) -> TextObjects:
        """What texts name in an RGB picture uint8 (H, W, 3), with a score above `min_score`; nothing found is no error.

        Raises:
            UsageError: there is no text, one is blank or given twice, or is longer than the network reads; or transformers
                cannot prepare such an image.
            SettingError: the score is not from 0 to 1.
        """
        least = self.least_score if min_score is None else min_score
        if not 0 <= least <= 1:
            raise SettingError(f"min_score is {least}; give a score from 0 to 1, such as {self.least_score}")
        check_texts(texts)
        self._check_lengths(texts)
        height, width = picture.shape[:2]
        try:
            found = KINDS[self.kind].look(self, _view(picture), (height, width), texts, least)
        except Exception as error:  # of whatever stands behind transformers, which changes with its version
            first = (str(error) or type(error).__name__).splitlines()[0]
            raise UsageError(
                f"{self.kind} cannot look at an image of {width} x {height} ({first}); crop or resize it, or give another "
                "network with text_weights"
            ) from error
        limits = torch.tensor([width, height, width, height], dtype=torch.float32)
        boxes = torch.minimum(found.boxes.float().cpu().clamp(min=0), limits)
        scores, class_ids = found.scores.float().cpu(), found.class_ids.cpu()
        is_kept = (scores > least) & (boxes[:, 2] - boxes[:, 0] > 0) & (boxes[:, 3] - boxes[:, 1] > 0)  # false for NaN
        boxes, scores, class_ids = boxes[is_kept], scores[is_kept], class_ids[is_kept]
        chosen = suppress(boxes, scores, class_ids, overlap=SAME_IOU, count=MOST_OBJECTS)
        masks = None if found.masks is None else found.masks.cpu()[is_kept][chosen].numpy() > 0
        return TextObjects(boxes[chosen].numpy(), class_ids[chosen].numpy(), scores[chosen].numpy(), masks)

    def _check_lengths(self, texts: Sequence[str]) -> None:
        """See that the network reads all of each text.

        Raises:
            UsageError: one is longer.
        """
        tokenizer, config = self.processor.tokenizer, self.network.config
        limits = (config.text_config.max_position_embeddings, getattr(config, "max_text_len", None), tokenizer.model_max_length)
        most = min(int(limit) for limit in limits if limit is not None)
        for text in texts:
            count = len(tokenizer(text)["input_ids"])
            if count > most:
                raise UsageError(f"the text {text!r} has {count} tokens, and this network reads {most}; say it in fewer words")


@dataclass(frozen=True, eq=False)
class _Guesses:
    """Q guesses of a network: `boxes` (Q, 4) in pixels (x1, y1, x2, y2), `scores` (Q,), `class_ids` (Q,), `masks` (Q, H, W)."""

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor
    masks: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence["_Guesses"]) -> "_Guesses":
        """The guesses of all parts, each about the next text."""
        class_ids = torch.cat([torch.full((len(part.scores),), number) for number, part in enumerate(parts)])
        masks = [part.masks for part in parts if part.masks is not None]
        return cls(
            torch.cat([part.boxes for part in parts]),
            torch.cat([part.scores for part in parts]),
            class_ids,
            torch.cat(masks) if masks else None,
        )


def check_texts(texts: Sequence[str]) -> None:
    """See that texts name something, each something else.

    Raises:
        UsageError: there is none, one is blank or nothing but punctuation, or one is given twice, which capitals do not change.
    """
    said = [text.strip().casefold() for text in texts]
    if not said or not all(text.strip(punctuation + whitespace) for text in said):
        raise UsageError("a text is blank or nothing but punctuation, or there is none; name what to find, such as 'cat'")
    if twice := [text for text, plain in zip(texts, said, strict=True) if said.count(plain) > 1]:
        raise UsageError(f"{twice[-1].strip()!r} is given twice, as capitals make no other text; name each kind of object once")


def _view(picture: np.ndarray) -> Image.Image:
    """A picture as transformers takes it: hardly longer than these networks see, as its blurring would take hours for more."""
    factor = min(1.0, LONGEST / max(picture.shape[:2]))
    seen = scaled(picture.shape[:2], (factor, factor))
    return Image.fromarray(np.moveaxis(resize_image(np.moveaxis(picture, -1, 0), seen), 0, -1))


def _owl(detector: TextDetector, view: Image.Image, shape: tuple[int, int], texts: Sequence[str], _: float) -> _Guesses:
    """Of OWL-ViT, which squeezes an image to a square, and OWLv2, which pads it: each box is of the text that fits it best."""
    inputs = detector.processor(text=[list(texts)], images=view, return_tensors="pt")
    answer = detector.network(**inputs)
    height, width = shape
    sides = (max(height, width),) * 2 if detector.kind == "owlv2" else (width, height)
    scores, class_ids = answer.logits[0].sigmoid().max(dim=1)  # (Q, K)
    return _Guesses(_scaled(answer.pred_boxes[0], sides), scores, class_ids)


def _grounding_dino(
    detector: TextDetector, view: Image.Image, shape: tuple[int, int], texts: Sequence[str], _: float
) -> _Guesses:
    """A pass for each text: asked for together, phrases run into each other. The score is that of the word that fits best."""
    parts = []
    for text in texts:
        inputs = detector.processor(text=f"{text.strip().lower().rstrip('.')}.", images=view, return_tensors="pt")
        answer = detector.network(**inputs)
        scores = answer.logits[0].sigmoid().max(dim=1).values  # (Q, tokens)
        boxes = _scaled(answer.pred_boxes[0], (shape[1], shape[0]))
        parts.append(_Guesses(boxes, scores, torch.zeros(len(scores))))
    return _Guesses.joined(parts)


def _clipseg(detector: TextDetector, view: Image.Image, shape: tuple[int, int], texts: Sequence[str], least: float) -> _Guesses:
    """A box around each piece of the map of a text, with the highest value in it as its score."""
    parts = []
    height, width = shape
    for text in texts:
        inputs = detector.processor(text=[text], images=[view], return_tensors="pt")
        probs = detector.network(**inputs).logits.sigmoid().squeeze(0).float().cpu().numpy()  # (h, w)
        pieces, count = connected_components(probs > least, 8)
        step = np.array([width / probs.shape[1], height / probs.shape[0]] * 2)
        boxes, scores = [np.zeros((0, 4))], [0.0]
        for number in range(1, 1 + count):
            rows, columns = np.nonzero(pieces == number)
            if len(rows) >= LEAST_PIXELS:
                boxes.append(np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]) * step)
                scores.append(float(probs[rows, columns].max()))
        parts.append(_Guesses(torch.from_numpy(np.concatenate(boxes)), torch.tensor(scores[1:]), torch.zeros(len(scores) - 1)))
    return _Guesses.joined(parts)


def _sam3(detector: TextDetector, view: Image.Image, shape: tuple[int, int], texts: Sequence[str], least: float) -> _Guesses:
    """The masks of SAM 3, and the boxes that it gives with them."""
    parts = []
    for text in texts:
        inputs = dict(detector.processor(text=text, images=view, return_tensors="pt"))
        inputs.pop("original_sizes", None)  # which the network does not take
        answer = detector.network(**inputs)
        found = detector.processor.post_process_instance_segmentation(answer, threshold=least, target_sizes=[shape])[0]
        masks = found["masks"].reshape(-1, *shape)
        parts.append(_Guesses(found["boxes"].reshape(-1, 4), found["scores"], torch.zeros(len(found["scores"])), masks))
    return _Guesses.joined(parts)


def _scaled(boxes: Tensor, sides: tuple[int, int]) -> Tensor:
    """Boxes (Q, 4) of centre and sides, as shares, in pixels (x1, y1, x2, y2) of what is so many wide and high."""
    return box_convert(boxes, "cxcywh", "xyxy") * torch.tensor([*sides, *sides], dtype=boxes.dtype)


@dataclass(frozen=True)
class _Kind:
    """How a kind of network is opened and asked: its class in transformers, its threshold, and its function."""

    network: str
    least_score: float
    look: Callable[[TextDetector, Image.Image, tuple[int, int], Sequence[str], float], _Guesses]
    gives_masks: bool = False


# The thresholds are those of transformers' functions for the same network; CLIPSeg has none, and its authors trained with 0.5
# as the border between what is meant and the rest.
KINDS = {
    "owlvit": _Kind("OwlViTForObjectDetection", 0.1, _owl),
    "owlv2": _Kind("Owlv2ForObjectDetection", 0.1, _owl),
    "grounding-dino": _Kind("GroundingDinoForObjectDetection", 0.25, _grounding_dino),
    "mm-grounding-dino": _Kind("MMGroundingDinoForObjectDetection", 0.25, _grounding_dino),
    "clipseg": _Kind("CLIPSegForImageSegmentation", 0.5, _clipseg),
    "sam3": _Kind("Sam3Model", 0.3, _sam3, gives_masks=True),
}
