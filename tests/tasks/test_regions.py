"""Regions that nest: their targets, loss, decoding, ensembles and uncertainty. Axes: B batch, K classes, *S spatial axes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core import VOID, Classes, Dataset, Sample
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.data.fingerprint import fingerprint
from segwright.decoding.run import Run
from segwright.formats.label_maps import NOTHING, mask_values, to_segmentation
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.ensemble import RegionEnsemble
from segwright.layers.point_sampling import WithPoints
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.weighted_sum import WeightedSum
from segwright.metrics.confusion import Confusion
from segwright.models import nnunet, preset, unet
from segwright.tasks import Averages, Batch, Task, TellsUncertainty, WeighsClasses
from segwright.tasks.regions import Regions
from segwright.tasks.semantic import Semantic
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

TUMOUR = Classes.of(["whole", "core", "enhancing"], regions=[[1, 2, 3], [2, 3], [3]])
SAME = Preprocess(channels=1, normalise=Normalise(mean=(0.0,), std=(1.0,)))


def truth_of(numbers, classes=TUMOUR):
    """The regions of a map of the numbers in files, where 0 is nothing and -1 void."""
    numbers = np.asarray(numbers)
    return to_segmentation(np.where(numbers == 0, NOTHING, numbers), None, classes)


def nested(shape, seed):
    """An image (1, *S), and numbers: a ball 1 with a core 2 and, in it, 3. The ring around the core is thin."""
    generator = np.random.default_rng(seed)
    centre = [side / 2 + generator.uniform(-1, 1) for side in shape]
    places = np.meshgrid(*map(np.arange, shape), indexing="ij")
    radius = np.sqrt(sum((place - at) ** 2 for place, at in zip(places, centre, strict=True))) / min(shape)
    numbers = (radius < 0.42).astype(int) + (radius < 0.3) + (radius < 0.18)
    values = np.array([0.0, 1.0, 0.4, 2.0])[numbers]  # the core looks like something between nothing and the ring
    return (values + generator.normal(0, 0.2, shape)).astype(np.float32)[None], numbers


class Fixed(nn.Module):
    """Logits (1, K, *S), whatever the image."""

    divisors = (1, 1)

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", torch.as_tensor(logits, dtype=torch.float32))

    def forward(self, image):
        return self.logits.expand(len(image), *self.logits.shape[1:])


def run_of(network, classes=TUMOUR, **settings):
    """How a network is asked, on the CPU."""

    def engine(images):
        with torch.no_grad():
            found = network(torch.from_numpy(np.ascontiguousarray(images)))
        return tuple(part.numpy() for part in (found if isinstance(found, tuple) else (found,)))

    return Run(engine=engine, classes=classes, divisors=network.divisors, **settings)


def view_of(image):
    return SAME(Sample.of("a", image))


# By hand


def test_a_target_says_of_each_region_where_it_is():
    sample = Sample.of("a", np.zeros((1, 1, 5), np.uint8), truth_of([[0, 1, 2, 3, VOID]]))
    target = Regions().target(sample)
    assert target.dtype == np.int8
    assert target[:, 0].tolist() == [[0, 1, 1, 1, VOID], [0, 0, 1, 1, VOID], [0, 0, 0, 1, VOID]]


def test_later_regions_cover_earlier_ones():
    """nnU-Net: each region, in its order, overwrites with its number where its probability is above one half."""
    above = np.array([[0, 1, 1, 1, 0, 0, 1], [0, 0, 1, 1, 0, 1, 0], [0, 0, 0, 1, 1, 0, 1]])
    found = Regions().decode(run_of(Fixed(np.where(above, 0.1, -0.1)[None, :, None])), view_of(np.zeros((1, 1, 7), np.float32)))
    assert found.masks()[:, 0].astype(int).tolist() == above.tolist()
    assert found.class_map().tolist() == [[VOID, 0, 1, 2, 2, 1, 2]]
    numbers = np.zeros(7, int)
    for number, region in zip([1, 2, 3], above, strict=True):  # regions_class_order
        numbers[region > 0] = number
    assert numbers.tolist() == [0, 1, 2, 3, 3, 2, 3]
    assert mask_values(Sample.of("a", np.zeros((1, 1, 7), np.uint8), found)).tolist() == [numbers.tolist()]


def test_scores_are_of_regions():
    """The whole is right although its inner number is wrong, and the core is half right."""
    truth, found = truth_of([[0, 1, 2, 2]]), truth_of([[0, 1, 1, 2]])
    metric = Confusion(TUMOUR)
    scores = metric.score(metric.count(found, truth))
    assert scores["IoU/whole"] == scores["Dice/whole"] == 1 and np.isnan(scores["IoU/enhancing"])
    assert scores["IoU/core"] == 0.5 and scores["Dice/core"] == pytest.approx(2 / 3)
    assert scores["mIoU"] == 0.75


def test_probabilities_are_sigmoids():
    logits = np.array([[[[0.0, 2.0]], [[-3.0, 200.0]], [[-200.0, 1.0]]]])
    probs = Regions().probabilities(run_of(Fixed(logits)), view_of(np.zeros((1, 1, 2), np.float32)))
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-logits[0])), atol=1e-6)
    [(first, row)] = Regions().probability_rows(run_of(Fixed(logits)), view_of(np.zeros((1, 1, 2), np.float32)))
    assert first == 0 and np.array_equal(row, probs)
    halved = Regions().probabilities(run_of(Fixed(logits), temperature=2.0), view_of(np.zeros((1, 1, 2), np.float32)))
    np.testing.assert_allclose(halved, 1 / (1 + np.exp(-logits[0] / 2)), atol=1e-6)


def test_how_uncertain_regions_are():
    logits = np.array([[[[0.0, 90.0]], [[0.0, -90.0]], [[0.0, 0.0]]]])
    _, maps, sums = Regions().with_uncertainty(run_of(Fixed(logits)), view_of(np.zeros((1, 1, 2), np.float32)))
    assert sums.predicted.tolist() == [1, 0, 0] and sums.whole == pytest.approx([1.5, 0.5, 1.0])
    assert {name: values.tolist() for name, values in maps.items()} == {"uncertainty": [[1.0, pytest.approx(1 / 3)]]}
    both = RegionEnsemble([Fixed(np.full((1, 3, 1, 2), 90.0)), Fixed(np.full((1, 3, 1, 2), -90.0))])
    _, maps, _ = Regions().with_uncertainty(run_of(both), view_of(np.zeros((1, 1, 2), np.float32)))
    assert maps["uncertainty"] == pytest.approx(1, abs=1e-5) and maps["disagreement"] == pytest.approx(1, abs=1e-5)


def test_engines_agree_where_signs_do():
    ours, theirs = np.array([[1.0, -1.0, 2.0, -3.0]]), np.array([[0.1, -9.0, -1.0, -3.0]])
    assert Regions().agreement((ours,), (theirs,), (1, 4)) == 0.75


def test_it_is_a_task():
    task = Regions()
    assert all(isinstance(task, kind) for kind in (Task, WeighsClasses, Averages, TellsUncertainty))
    assert task.against_collapse([0.1, 0.2]) == ()


def test_a_plan_says_why():
    image, numbers = nested((24, 24), 0)
    data = Dataset("memory", TUMOUR, ("a",), lambda key: Sample.of(key, image, truth_of(numbers)))
    task, reasons = Regions.planned(fingerprint(data))
    assert task == Regions() and reasons["task"].startswith("classes overlap (whole, core, enhancing)")
    assert Regions().dataset(data) is data


# By a slow twin


def slow_loss(logits, target):
    """Binary cross-entropy over what is known, and one minus Dice of each sample and region, in plain loops."""
    costs, dices = [], []
    for x, t in zip(logits.flatten(0, 1).flatten(1), target.flatten(0, 1).flatten(1), strict=True):
        known = t >= 0
        p, t = x[known].sigmoid(), t[known].to(x.dtype)
        costs.append(-(t * p.log() + (1 - t) * (1 - p).log()))
        dices.append(1 - (2 * (p * t).sum() + 1e-5) / (p.sum() + t.sum() + 1e-5))
    return torch.cat(costs).mean() + torch.stack(dices).mean()


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (2, 3, 4, 6, 8)])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_loss_is_that_of_each_region(shape, stride):
    generator = torch.Generator().manual_seed(0)
    size = shape[2:]
    logits = torch.randn(*shape[:2], *(side // stride for side in size), generator=generator, dtype=torch.float64)
    target = torch.randint(0, 2, shape, generator=generator).to(torch.int8)
    target[torch.rand(shape[:1] + size, generator=generator)[:, None].expand(shape) < 0.2] = VOID
    full = logits if stride == 1 else F.interpolate(logits, size=size, mode="bilinear" if len(size) == 2 else "trilinear")
    terms = Regions().loss(lambda image: logits, Batch(["a", "b"], torch.zeros(2, 1, *size), target), generator)
    assert list(terms) == ["binary_cross_entropy", "dice"]
    torch.testing.assert_close(sum(terms.values()), slow_loss(full, target))


def test_deep_supervision_compares_each_map_with_the_regions_at_its_size():
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(1, 3, side, side, generator=generator) for side in (8, 4, 2)]
    target = torch.randint(-1, 2, (1, 3, 8, 8), generator=generator).to(torch.int8)
    outputs, batch = WithAuxiliary(maps[0], tuple(maps[1:]), (1.0, 1.0)), Batch(["a"], torch.zeros(1, 1, 8, 8), target)
    terms = Regions(deep_supervision=True).loss(lambda image: outputs, batch, generator)
    half = target[:, :, ::2, ::2]  # of the pixels nearest to a centre the first
    expected = 2 / 3 * slow_loss(maps[0], target) + 1 / 3 * slow_loss(maps[1], half)
    torch.testing.assert_close(sum(terms.values()), expected)


def test_what_a_missed_region_costs():
    crops = [Sample.of("a", np.zeros((1, 2, 4), np.uint8), truth_of([[0, 1, 2, 3], [0, 1, VOID, 3]]))]
    charges = Regions().charges(crops, 3)
    assert (charges > 0.1).all()
    assert charges[0] > charges[2]  # of more pixels


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_folds_are_averaged_by_their_probabilities(temperature):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (3, 1, 3, 4, 5))
    network = Regions().averaged([Fixed(each) for each in logits], temperature=temperature)
    found, entropy = network(torch.zeros(1, 1, 4, 5))
    probs = 1 / (1 + np.exp(-logits / temperature))
    np.testing.assert_allclose(found.sigmoid().detach(), probs.mean(axis=0), atol=1e-5)
    entropies = -(probs * np.log(probs) + (1 - probs) * np.log(1 - probs))
    np.testing.assert_allclose(entropy.detach()[:, 0], entropies.mean(axis=(0, 2)), rtol=1e-4)


@pytest.mark.parametrize("axes", [2, 3])
def test_tiles_and_mirrors_are_blended_as_logits(axes):
    """A network that sees each pixel by itself says the same of a whole image, of tiles and of mirrors."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, 3, 1) if axes == 2 else nn.Conv3d(1, 3, 1)
    network.divisors = (1,) * axes
    image = np.random.default_rng(0).normal(0, 2, (1, *(9, 20, 17)[-axes:])).astype(np.float32)
    whole = Regions().decode(run_of(network), view_of(image))
    tiles = run_of(network, tile=(6, 8, 8)[-axes:], flip_axes=(-1,))
    assert np.array_equal(Regions().decode(tiles, view_of(image)).masks(), whole.masks())
    assert np.array_equal(Regions().probabilities(tiles, view_of(image)) > 0.5, _all_masks(whole))


def _all_masks(found):
    masks = np.zeros((len(found.classes), *found.shape), bool)
    masks[found.class_ids] = found.masks()
    return masks


# By a law


def trained(task, config, classes, crops, steps):
    """A small network after some steps on crops, which are one batch."""
    torch.manual_seed(0)
    network = task.fitted(config, 1, classes).build()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    batch = task.collate([(crop.key, crop.image, task.target(crop)) for crop in crops])
    for _ in range(steps):
        optimiser.zero_grad()
        sum(task.loss(network, batch, torch.Generator()).values()).backward()
        optimiser.step()
    return network.eval()


@pytest.mark.parametrize(
    ("shape", "config", "steps"),
    [
        ((24, 24), unet.Config(width=8, depth=3), 60),
        ((12, 12, 12), nnunet.Config(features=(8, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2), 60),
    ],
)
def test_the_outer_region_has_no_hole_as_that_of_exclusive_classes(shape, config, steps):
    """Of classes that exclude each other, the outer one is learned with a hole where the inner ones lie."""
    cases = {f"c{seed}": nested(shape, seed) for seed in range(6)}
    data = Dataset("memory", TUMOUR, tuple(cases), lambda key: Sample.of(key, cases[key][0], truth_of(cases[key][1])))
    overlaps = []
    for task in (Regions(), Semantic()):
        seen = task.dataset(data)
        network = trained(task, config, seen.classes, seen.subset(seen.keys[:4]), steps)
        overlap = union = 0
        for key in seen.keys[4:]:
            image, numbers = cases[key]
            found = task.decode(run_of(network, seen.classes), view_of(image))
            mask = _all_masks(found)[seen.classes.names.index("whole")]
            overlap, union = overlap + (mask & (numbers > 0)).sum(), union + (mask | (numbers > 0)).sum()
        overlaps.append(overlap / union)
    assert overlaps[0] > 0.9 and overlaps[0] > overlaps[1] + 0.2


def test_void_teaches_nothing():
    """The ignore label: whatever logits are there, the loss is the same and nothing pulls at them."""
    numbers = np.array([[0, 1, 2, 3], [VOID, VOID, 3, 1]])
    target = torch.from_numpy(Regions().target(Sample.of("a", np.zeros((1, 2, 4), np.uint8), truth_of(numbers))))[None]
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(1, 3, 2, 4, generator=generator)
    second = torch.where(target == VOID, torch.randn(1, 3, 2, 4, generator=generator), first)
    losses = []
    for logits in (first.requires_grad_(), second.requires_grad_()):
        terms = Regions().loss(lambda image, logits=logits: logits, Batch(["a"], torch.zeros(1, 1, 2, 4), target), generator)
        losses.append(sum(terms.values()))
        losses[-1].backward()
        assert (logits.grad[target == VOID] == 0).all() and logits.grad.abs().max() > 0
    torch.testing.assert_close(*losses)


def test_regions_that_a_crop_shows_nothing_of():
    target = Regions().target(Sample.of("a", np.zeros((1, 2, 2), np.uint8), truth_of(np.zeros((2, 2), int))))
    assert target.shape == (3, 2, 2) and not target.any()
    found = Regions().decode(run_of(Fixed(np.full((1, 3, 1, 1), -1.0))), view_of(np.zeros((1, 4, 5), np.float32)))
    assert len(found) == 0 and found.shape == (4, 5)


# By its messages


def test_a_sample_without_truth_is_named():
    with pytest.raises(UsageError, match="sample 'a' has no truth to learn from"):
        Regions().target(Sample.of("a", np.zeros((1, 2, 2), np.uint8)))


@pytest.mark.parametrize("criterion", [CrossEntropy(), WeightedSum()])
def test_losses_of_classes_that_compete_are_refused(criterion):
    with pytest.raises(SettingError, match="classes exclude each other, and regions overlap; take binary_cross_entropy"):
        Regions(criterion=criterion)


def test_networks_of_queries_and_points_are_refused():
    batch = Batch(["a"], torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.int8))
    points = WithPoints(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 4), torch.zeros(1, 4, 2))
    with pytest.raises(SettingError, match="finds objects or segments, or looks at points besides; leave --model out"):
        Regions().loss(lambda image: points, batch, torch.Generator())
    queries = Fixed(np.zeros((1, 3, 2, 2)))
    queries.OUTPUT = "queries"
    with pytest.raises(SettingError, match="finds objects or segments, or looks at points besides; leave --model out"):
        Regions().loss(queries, batch, torch.Generator())
    for name in ("mask_rcnn_small", "mask2former_small"):
        with pytest.raises(SettingError, match="looks at points besides; leave --model out"):
            Regions().fitted(preset(name), 1, TUMOUR)


def test_a_network_with_other_logits_is_told():
    with pytest.raises(ShapeError, match="the network gives 2 classes, but there are names for 3"):
        Regions().decode(run_of(Fixed(np.zeros((1, 2, 1, 1)))), view_of(np.zeros((1, 4, 5), np.float32)))
