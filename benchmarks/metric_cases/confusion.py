"""Confusion matrices: class maps of 19 classes at 1024 x 2048, and logits at a quarter of that size. Axes: K classes, H, W."""

from collections.abc import Iterator

import numpy as np

from metric_cases.case import Case, Side, kept
from metric_cases.scenes import regions, wobbled

K, SHAPE, VOID = 19, (1024, 2048), 255
MAPS = 8  # as many as make a turn long enough to time


def cases() -> Iterator[Case]:
    """Counting from maps, on one core and on growing images, and from logits."""
    yield Case(
        group="confusion",
        name=f"confusion matrix, {MAPS} maps of {K} classes, 1024 x 2048, uint8",
        make=lambda is_small: kept("maps", lambda: maps(MAPS))[: 1 if is_small else MAPS],
        cores=1,
        amount=MAPS * SHAPE[0] * SHAPE[1] / 1e6,
        sides={
            "segwright": Side(run=ours),
            "numpy bincount": Side(run=with_numpy),
            "torch bincount": Side(run=with_torch, prepare=as_tensors, needs=("torch",)),
            "torchmetrics": Side(run=with_torchmetrics, prepare=as_tensors, needs=("torchmetrics",)),
        },
    )
    yield Case(
        group="confusion",
        name="the same, as segmentations",
        make=lambda is_small: kept("maps", lambda: maps(MAPS))[: 1 if is_small else MAPS],
        cores=1,
        amount=MAPS * SHAPE[0] * SHAPE[1] / 1e6,
        sides={
            "segwright": Side(run=our_metric, prepare=as_segmentations, note="int32 planes"),
            "numpy bincount": Side(run=with_numpy),
        },
    )
    yield Case(
        group="confusion",
        name=f"confusion matrix from logits, {K} x 256 x 512 to 1024 x 2048",
        make=lambda is_small: kept("logits", lambda: logits(2)),
        cores=2,
        amount=2 * SHAPE[0] * SHAPE[1] / 1e6,
        sides={
            "segwright": Side(run=ours_from_logits),
            "torch: upsample, argmax, bincount": Side(run=torch_from_logits, needs=("torch",)),
        },
    )


def maps(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of a prediction and a truth; 5 % of the truth is void."""
    generator, pairs = np.random.default_rng(0), []
    for _ in range(count):
        truth = regions(generator, SHAPE, K)
        prediction = wobbled(generator, truth, 6.0)
        truth[regions(generator, SHAPE, 20) == 0] = VOID
        pairs.append((prediction, truth))
    return pairs


def logits(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of logits (K, H/4, W/4), smooth like those of a network, and a truth (H, W)."""
    from scipy.ndimage import gaussian_filter

    generator, pairs = np.random.default_rng(1), []
    for _ in range(count):
        truth = regions(generator, SHAPE, K)
        hot = (truth[::4, ::4] == np.arange(K)[:, None, None]).astype(np.float32)
        noise = 0.02 * generator.standard_normal(hot.shape, dtype=np.float32)
        pairs.append((8 * gaussian_filter(hot + noise, (0, 2, 2)), truth))
    return pairs


def scores(matrix: np.ndarray) -> dict[str, float]:
    """IoU of each class and the pixel accuracy, of a matrix (K, K) or (K, K + 1) with a row per true class."""
    right = np.diag(matrix[:, :K]).astype(float)
    union = matrix.sum(axis=1) + matrix[:, :K].sum(axis=0) - right
    return {"accuracy": right.sum() / matrix.sum(), **{f"IoU/{k}": right[k] / union[k] for k in range(K)}}


def ours(pairs: list) -> dict[str, float]:
    """Our kernel on bare maps."""
    from segwright.metrics.confusion import confusion_matrix

    return scores(sum(confusion_matrix(prediction, truth, K) for prediction, truth in pairs))


def as_segmentations(pairs: list) -> list:
    """The pairs as our data type."""
    from segwright.core import Classes, Segmentation

    classes = Classes.of([str(k) for k in range(K)])

    def of(labels: np.ndarray) -> Segmentation:
        return Segmentation.semantic(np.where(labels == VOID, -1, labels.astype(np.int32)), classes)

    return [(of(prediction), of(truth)) for prediction, truth in pairs]


def our_metric(pairs: list) -> dict[str, float]:
    """The metric itself."""
    from segwright.metrics.confusion import Confusion

    metric = Confusion(pairs[0][1].classes)
    state = metric.count(*pairs[0])
    for pair in pairs[1:]:
        state = state + metric.count(*pair)
    result = metric.score(state)
    return {"accuracy": float(result["pixel accuracy"]), **{f"IoU/{k}": float(result[f"IoU/{k}"]) for k in range(K)}}


def with_numpy(pairs: list) -> dict[str, float]:
    """One line of numpy, as in many repositories."""
    total = np.zeros(K * K, np.int64)
    for prediction, truth in pairs:
        known = truth != VOID
        total += np.bincount(truth[known].astype(np.int64) * K + prediction[known], minlength=K * K)
    return scores(total.reshape(K, K))


def as_tensors(pairs: list) -> list:
    """The pairs as tensors of int64, as networks give and losses need them."""
    import torch

    return [(torch.from_numpy(prediction).long(), torch.from_numpy(truth).long()) for prediction, truth in pairs]


def with_torch(pairs: list) -> dict[str, float]:
    """The same line in torch."""
    import torch

    total = torch.zeros(K * K, dtype=torch.int64)
    for prediction, truth in pairs:
        known = truth != VOID
        total += torch.bincount(truth[known] * K + prediction[known], minlength=K * K)
    return scores(total.reshape(K, K).numpy())


def with_torchmetrics(pairs: list) -> dict[str, float]:
    """torchmetrics with its defaults."""
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(K, ignore_index=VOID)
    for prediction, truth in pairs:
        metric.update(prediction, truth)
    return scores(metric.compute().numpy())


def ours_from_logits(pairs: list) -> dict[str, float]:
    """Our count, for which logits are never written at full size."""
    from segwright.evaluation.logits import confusion_of_logits

    return scores(sum(confusion_of_logits(values, truth) for values, truth in pairs))


def torch_from_logits(pairs: list) -> dict[str, float]:
    """What evaluation loops do."""
    import torch
    from torch.nn.functional import interpolate

    total = torch.zeros(K * K, dtype=torch.int64)
    for values, truth in pairs:
        full = interpolate(torch.from_numpy(values)[None], truth.shape, mode="bilinear", align_corners=False)
        prediction, wanted = full[0].argmax(dim=0), torch.from_numpy(truth)
        known = wanted != VOID
        total += torch.bincount(wanted[known].long() * K + prediction[known], minlength=K * K)
    return scores(total.reshape(K, K).numpy())
