"""What texts name in an image, as masks: boxes of a network that reads texts, drawn exactly by one that answers prompts.

Axes: C channels, H, W sides of the image, K texts, N objects, h, w of the network's masks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from segwright.core import Classes, Prompt, Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.core.visualise import as_rgb
from segwright.decoding.logit_runs import runs_of_logits
from segwright.decoding.mask_runs import MaskRuns
from segwright.inference.prompting import Prompter, check_flat, objects_of
from segwright.inference.text_detector import TextDetector, TextObjects, check_texts

BATCH = 64  # boxes at a time: their answers take 50 MB


def segment_text(
    prompter: Prompter | None,
    detector: TextDetector,
    sample: Sample,
    texts: Sequence[str],
    *,
    min_score: float | None = None,
) -> Segmentation:
    """The objects (H, W) that texts name in a sample whose image (C, H, W) is in the values of its file, the largest first.

    Each text is a class, with as many objects as are found with a score above `min_score` (the detector's `least_score` without
    one): how sure that network is that the text names it, not how good the mask is. There may be none. Masks may overlap. A
    detector that gives masks by itself needs no prompter.

    Raises:
        UsageError: there is no text, one is blank, given twice or too long.
        SettingError: the score is not from 0 to 1, or there is no prompter, and the detector gives boxes.
        ShapeError: the image is a volume, or has other channels than the network takes.
    """
    if prompter is None and not detector.gives_masks:
        raise SettingError(f"{detector.kind} finds boxes, and nothing draws masks in them; give a prompter, of open_prompter")
    check_flat(sample)
    check_texts(texts)
    classes = Classes.of([text.strip() for text in texts], is_thing=[True] * len(texts))
    found = detector.find(as_rgb(sample.image), classes.names, min_score=min_score)
    shape = (int(sample.image.shape[-2]), int(sample.image.shape[-1]))
    masks = _drawn(prompter, sample, found) if found.masks is None else _runs_of_masks(found.masks)
    areas = masks.areas()
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] > 0]
    return objects_of(
        masks.taken(order),
        found.scores[order],
        shape,
        range(1, 1 + len(order)),
        class_ids=found.class_ids[order],
        classes=classes,
    )


def _drawn(prompter: Any, sample: Sample, found: TextObjects) -> MaskRuns:
    """The masks that a promptable network gives for boxes, in their order."""
    if not len(found):
        return MaskRuns.of([])
    session = prompter.open_sample(sample)
    parts = []
    for first in range(0, len(found), BATCH):
        prompts = [Prompt(box_xyxy=box) for box in found.boxes_xyxy[first : first + BATCH]]
        answer = session.ask(prompts, multimask=False)
        best = answer.scores[0].argmax(dim=1)
        logits = answer.mask_logits[0, torch.arange(len(prompts)), best]  # (n, h, w)
        parts.append(runs_of_logits(logits.float().cpu().numpy(), session.place)[0])
    return MaskRuns.joined(parts)


def _runs_of_masks(masks: np.ndarray) -> MaskRuns:
    """Masks bool (N, H, W) as runs."""
    return MaskRuns.joined([MaskRuns.of_map(mask.astype(np.int32), 1) for mask in masks])
