"""A seeded run of twenty steps ends with the same weights as a loop of plain PyTorch and numpy, to the last bit.

The loop below is what a step was before there were tasks, samplers and accumulation; it draws and sums in the same order.
"""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segwright.checkpoints.model_file import read_tensors
from segwright.data.samplers.class_balanced import ClassBalanced
from segwright.data.samplers.uniform import Uniform
from segwright.encoders import mit
from segwright.formats import mask_folder, open_dataset, synthetic
from segwright.losses.weighted_sum import WeightedSum
from segwright.models import segformer, unet
from segwright.optimisers import adamw
from segwright.plans.plan import Augmentation, Data, Plan, Training
from segwright.training.loop import train
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess
from segwright.transforms.resize import resize, scaled

STEPS, BATCH, CROP, SEED, RATE = 20, 4, (32, 64), 3, 2e-3


def plan_of(data: Path, network, sampler, preprocess: Preprocess) -> Plan:
    return Plan(
        data=Data(train=str(data), preprocess=preprocess),
        sampler=sampler,
        augmentation=Augmentation(geometric=Geometric(elastic_px=1.0, rotate_deg=8.0), intensity=Intensity()),
        model=network,
        optimiser=adamw.Config(learning_rate=RATE),
        training=Training(steps=STEPS, batch_size=BATCH, crop=CROP, validations=1, seed=SEED),
    )


def crop_at(samples: list, position: int, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """The image and the class map at a position of the run."""
    epoch, place = divmod(position, len(samples))
    sample = samples[np.random.default_rng([SEED, 0, epoch]).permutation(len(samples))[place]]
    generator = np.random.default_rng([SEED, 1, position])

    def centre(draws: np.random.Generator) -> np.ndarray | None:
        if draws.random() >= getattr(plan.sampler, "share", 0.0):
            return None
        class_map = sample.truth.class_map()
        for k in draws.permutation(np.unique(sample.truth.class_ids)):
            if len(pixels := np.flatnonzero(class_map == k)):
                return np.array(np.unravel_index(draws.choice(pixels), class_map.shape))
        return None

    crop = plan.augmentation.geometric(sample, CROP, generator, centre)
    crop = plan.augmentation.intensity(crop, generator)
    normalise = plan.data.preprocess.normalise
    image = crop.image if normalise.mean is None else normalise(crop.image)
    return image, crop.truth.class_map().astype(np.int64)


def plain(plan: Plan) -> tuple[dict, dict]:
    """The weights and their average after twenty steps."""
    data = open_dataset(plan.data.train)
    samples = [data.load(key) for key in data.keys if key.startswith("train__")]
    preprocess = plan.data.preprocess
    if preprocess.scale:
        samples = [resize(sample, scaled(sample.grid.shape, preprocess.scale)) for sample in samples]
    if preprocess.normalise.mean is None:
        samples = [type(s)(s.key, preprocess.normalise(s.image), s.grid, s.truth) for s in samples]
    torch.manual_seed(SEED)
    network = plan.model.build()
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.01, fused=True)
    for step in range(STEPS):
        crops = [crop_at(samples, position, plan) for position in range(step * BATCH, (step + 1) * BATCH)]
        image, target = (torch.from_numpy(np.stack(parts)) for parts in zip(*crops, strict=True))
        progress = step / STEPS
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.05) / (1 - 0.05))))
        optimiser.param_groups[0]["lr"] = RATE * (0.01 + 0.99 * progress / 0.05 if progress < 0.05 else cosine)
        torch.manual_seed(SEED + step)
        logits = network.train()(image)
        if logits.shape[2:] != target.shape[1:]:
            logits = F.interpolate(logits, size=target.shape[1:], mode="bilinear", align_corners=False)
        loss = WeightedSum()(logits, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0, error_if_nonfinite=False)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        decay = min(1 - 1 / max(1.0, 0.02 * STEPS), (1 + step) / (10 + step))
        with torch.no_grad():
            for ours, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                ours.copy_(ours.lerp(theirs, 1 - decay) if ours.is_floating_point() else theirs)
    return network.state_dict(), average.state_dict()


UNET = unet.Config(num_classes=9, width=8, depth=3)
SEGFORMER = segformer.Config(num_classes=9, decoder_width=32, encoder=mit.Config(depths=(1, 1, 1, 1)))
FIXED = Preprocess(normalise=Normalise(mean=(110.0, 112.0, 113.0), std=(60.0, 61.0, 62.0)))


@pytest.mark.parametrize(
    ("network", "sampler", "preprocess"),
    [
        pytest.param(UNET, ClassBalanced(share=0.3), Preprocess(scale=(0.5, 0.5)), id="unet"),
        pytest.param(SEGFORMER, Uniform(), FIXED, id="segformer"),
    ],
)
def test_twenty_steps_are_those_of_a_plain_loop(tmp_path, network, sampler, preprocess):
    for part, count, seed in (("train", 6, 1), ("val", 1, 2)):
        mask_folder.write(tmp_path / "data" / part, synthetic.streets(count, shape=(96, 128), seed=seed))
    plan = plan_of(tmp_path / "data", network, sampler, preprocess)
    train(plan, tmp_path / "run")
    saved, _ = read_tensors(tmp_path / "run" / "state.safetensors")
    weights, average = plain(plan)
    for name, expected in weights.items():
        assert torch.equal(saved[f"network/{name}"], expected), name
    for name, expected in average.items():
        assert torch.equal(saved[f"ema/{name}"], expected), name
