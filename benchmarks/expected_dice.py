"""How often the interval of the Dice to expect holds, and whether it ranks images as the true Dice does.

    python benchmarks/expected_dice.py RUN DATA [--half]

DATA have a truth, and nothing of them was seen by RUN. Prints, of each class and of the mean, how many images lie in their
interval, the rank correlation of what was expected with what is true, both means, and the mean width of the interval. With
`--half`, half of each image lacks: the second half of its rows has its lowest value.
"""

import sys
from dataclasses import replace

import numpy as np
from scipy.stats import spearmanr

import segwright
from segwright.evaluation.conformal import dice_cases


def halved(sample):
    """A sample with the lowest value in the second half of the rows of its image (C, *S)."""
    image = sample.image.copy()
    image[..., image.shape[-2] // 2 :, :] = image.min()
    return replace(sample, image=image)


def main(run: str, data: str, option: str = "") -> None:
    """Measure a run on a data set."""
    predictor, ends = segwright.load(run), []

    def predict(sample):
        told = predictor.with_uncertainty(halved(sample) if option == "--half" else sample)
        ends.append(told[2])
        return told

    seen = predictor.task.dataset(segwright.open_dataset(data))
    cases = dice_cases(predict, seen)
    for k, name in enumerate((*seen.classes.names, "mean")):
        expected, low, high = (np.array([getattr(each, part)[k] for each in ends]) for part in ("expected", "low", "high"))
        true = cases.true[:, k]
        is_known, has_ends = ~np.isnan(expected) & ~np.isnan(true), ~np.isnan(low) & ~np.isnan(true)
        held = int(((low <= true) & (true <= high))[has_ends].sum())
        rank = spearmanr(expected[is_known], true[is_known]).statistic if is_known.sum() > 1 else np.nan
        means = [
            each[here].mean() if here.any() else np.nan
            for each, here in zip((expected, true, high - low), (is_known, is_known, has_ends), strict=True)
        ]
        print(name, f"{held} of {has_ends.sum()}", f"{rank:.2f}", *(f"{each:.3f}" for each in means), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
