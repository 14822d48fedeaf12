"""The loss of logits at a coarser grid is that of their upsampled copy."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.data.fingerprint import fingerprint
from segwright.decoding.run import Run
from segwright.encoders import timm
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.ensemble import Ensemble, QueryEnsemble
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.weighted_sum import WeightedSum
from segwright.models import segformer, unet
from segwright.tasks import Averages, Batch, Task, TellsUncertainty, WeighsClasses
from segwright.tasks.semantic import Semantic
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess


def test_the_target_is_the_class_map():
    class_map = np.array([[0, 1], [-1, 1]])
    sample = Sample.of("a", np.zeros((1, 2, 2), np.uint8), Segmentation.semantic(class_map))
    target = Semantic(criterion=CrossEntropy()).target(sample)
    assert target.dtype == np.int64 and (target == class_map).all()


@pytest.mark.parametrize(("size", "mode"), [((8, 12), "bilinear"), ((4, 8, 8), "trilinear")])
def test_coarse_logits_are_upsampled(size, mode):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 3, *(side // 4 for side in size), generator=generator)
    target = torch.randint(-1, 3, (2, *size), generator=generator)
    expected = F.cross_entropy(F.interpolate(coarse, size=size, mode=mode), target, ignore_index=-1)
    batch = Batch(["a", "b"], torch.zeros(2, 1, *size), target)
    terms = Semantic(criterion=CrossEntropy()).loss(lambda image: coarse, batch, generator)
    torch.testing.assert_close(dict(terms), {"loss": expected})


def test_a_sample_without_truth_is_named():
    with pytest.raises(UsageError, match="sample 'a' has no truth"):
        Semantic(criterion=CrossEntropy()).target(Sample.of("a", np.zeros((1, 2, 2), np.uint8)))


def test_the_terms_of_a_sum_are_told_apart_and_add_up():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 3, 8, 8, generator=generator), torch.randint(-1, 3, (2, 8, 8), generator=generator)
    criterion = WeightedSum(terms=(CrossEntropy(), CrossEntropy()), weights=(1.0, 0.5))
    terms = Semantic(criterion=criterion).loss(lambda image: logits, Batch(["a"], torch.zeros(1), target), generator)
    assert list(terms) == ["cross_entropy", "cross_entropy_2"]
    torch.testing.assert_close(sum(terms.values()), criterion(logits, target))


def test_it_is_a_task():
    assert isinstance(Semantic(), Task)


# Deep supervision


@dataclass(frozen=True)
class NnunetLoss:
    """nnU-Net's default: cross-entropy minus the soft Dice of the whole batch, without background."""

    def __call__(self, logits, target):
        probs = logits.softmax(dim=1)
        truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1)
        axes = (0, *range(2, logits.ndim))
        overlap, size = (probs * truth).sum(axes)[1:], (probs + truth).sum(axes)[1:]
        return F.cross_entropy(logits, target) - ((2 * overlap + 1e-5) / (size + 1e-5)).mean()


def golden_outputs():
    golden = load_file(Path(__file__).parents[1] / "golden" / "losses_a.safetensors")
    main, *auxiliary = (golden[f"in/{name}"].clone().requires_grad_() for name in ("logits3", "ds1", "ds2"))
    return golden, WithAuxiliary(main, tuple(auxiliary), (0.5, 0.25))


def test_deep_supervision_is_that_of_nnunet():
    golden, outputs = golden_outputs()
    target = golden["in/target3"][:, 0]
    terms = Semantic(criterion=NnunetLoss(), deep_supervision=True).loss(
        lambda image: outputs, Batch(["a"], torch.zeros(1, 1, *target.shape[1:]), target), None
    )
    loss = sum(terms.values())
    loss.backward()
    assert list(terms) == ["loss", "auxiliary"]
    expected = golden["out/nnunet.deep_supervision.value"].squeeze().double()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=2e-6)  # their Dice is float32
    torch.testing.assert_close(outputs.logits.grad, golden["out/nnunet.deep_supervision.grad"].double(), rtol=1e-5, atol=2e-6)
    assert outputs.auxiliary[0].grad.abs().max() > 0 and outputs.auxiliary[1].grad.abs().max() == 0  # the lowest weighs 0


@pytest.mark.parametrize(
    ("sizes", "weights"),
    [
        (((8, 12), (4, 6)), (2 / 3, 1 / 3)),
        (((8, 12), (4, 6), (2, 3)), (2 / 3, 1 / 3, 0)),
        (((8, 12), (4, 6), (2, 3), (1, 1)), (4 / 7, 2 / 7, 1 / 7, 0)),
    ],
)
def test_weights_halve_and_the_lowest_of_two_auxiliary_outputs_is_left_out(sizes, weights):
    generator = torch.Generator().manual_seed(0)
    main, *auxiliary = (torch.randn(2, 3, *size, generator=generator) for size in sizes)
    target = torch.randint(-1, 3, (2, *sizes[0]), generator=generator)
    outputs, criterion = WithAuxiliary(main, tuple(auxiliary), (9.0,) * len(auxiliary)), WeightedSum()
    terms = Semantic(criterion=criterion, deep_supervision=True).loss(
        lambda image: outputs, Batch(["a", "b"], torch.zeros(2, 1, *sizes[0]), target), generator
    )
    assert list(terms) == ["cross_entropy", "dice", "auxiliary"]
    first, *others = weights
    torch.testing.assert_close(terms["cross_entropy"] + terms["dice"], first * criterion(main, target))
    expected = 0
    for weight, logits in zip(others, auxiliary, strict=True):
        step = sizes[0][0] // logits.shape[2], sizes[0][1] // logits.shape[3]
        expected += weight * criterion(logits, target[:, (step[0] - 1) // 2 :: step[0], (step[1] - 1) // 2 :: step[1]])
    torch.testing.assert_close(terms["auxiliary"], expected)


def test_void_stays_void_at_each_size():
    target = torch.arange(8 * 8).reshape(1, 8, 8) % 2
    target[:, :, :4] = -1
    coarse = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    outputs = WithAuxiliary(torch.zeros(1, 2, 8, 8), (coarse,), (1.0,))
    terms = Semantic(criterion=CrossEntropy(), deep_supervision=True).loss(
        lambda image: outputs, Batch(["a"], torch.zeros(1, 1, 8, 8), target), None
    )
    terms["auxiliary"].backward()
    assert coarse.grad[..., :2].abs().max() == 0 and coarse.grad[..., 2:].abs().min() > 0


@pytest.mark.parametrize(("axes", "size"), [(2, (32, 32)), (3, (16, 16, 16))])
def test_a_unet_trains_a_step_under_deep_supervision(axes, size):
    torch.manual_seed(0)
    network = unet.Config(in_channels=1, width=4, depth=4, axes=axes, norm="instance", deep_supervision=2).build()
    batch = Batch(["a"], torch.randn(1, 1, *size), torch.randint(-1, 2, (1, *size)))
    optimiser, losses = torch.optim.SGD(network.parameters(), lr=0.05), []
    for _ in range(4):
        optimiser.zero_grad()
        terms = Semantic(deep_supervision=True).loss(network, batch, None)
        sum(terms.values()).backward()
        optimiser.step()
        losses.append(sum(terms.values()).item())
    assert losses[-1] < losses[0] and all(weight.grad is not None for weight in network.parameters())  # as DDP needs
    heads = [head.weight.grad.abs().max() for head in network.auxiliary]
    assert heads[0] > 0 and heads[1] == 0


def test_deep_supervision_of_a_network_with_one_output_names_the_remedy():
    task = Semantic(criterion=CrossEntropy(), deep_supervision=True)
    batch = Batch(["a"], torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64))
    with pytest.raises(SettingError, match="--set model.deep_supervision=2"):
        task.loss(lambda image: torch.zeros(1, 2, 8, 8), batch, None)


# What it plans


def found_of(classes, class_map):
    sample = Sample.of("a", np.zeros((1, *class_map.shape), np.uint8), Segmentation.semantic(class_map, classes))
    return fingerprint(Dataset("data", classes, ("a",), lambda key: sample))


@pytest.fixture
def found():
    return found_of(Classes.of(["a", "b"]), np.arange(60)[None, :] % 2 + np.zeros((40, 1), int))


def test_a_tiny_class_weighs_more_and_the_mean_weight_is_one(found):
    task, reasons = Semantic.planned(replace(found, class_fractions=(0.999, 0.001)))
    common, rare = task.criterion.terms[0].class_weights
    assert rare / common == pytest.approx(999**0.5, rel=1e-3)
    assert 0.999 * common + 0.001 * rare == pytest.approx(1, rel=1e-3)
    assert reasons["task.criterion"].startswith("the rarest class has 0.10% of the pixels; cross-entropy without weights takes")


def test_a_class_that_is_rare_alone_weighs_like_others(found):
    """Weights took more around the hippocampus for it: a precision of 0.74 in 320 steps, and 0.81 without."""
    task, reasons = Semantic.planned(replace(found, class_fractions=(0.975, 0.025)))
    assert task == Semantic() and "Dice counts it as much as others" in reasons["task.criterion"]


def test_a_class_that_was_never_seen_changes_nothing(found):
    assert Semantic.planned(replace(found, class_fractions=(1.0, 0.0)))[0] == Semantic()
    task, _ = Semantic.planned(
        replace(found, class_names=("a", "b", "c"), class_fractions=(0.999, 0.001, 0.0), class_images=(1, 1, 0))
    )
    assert all(np.isfinite(task.criterion.terms[0].class_weights))


def test_a_person_is_told_that_regions_inside_others_become_holes(found, caplog):
    Semantic.planned(replace(found, class_fractions=(0.7, 0.3)))
    assert not caplog.records
    Semantic.planned(replace(found, class_fractions=(0.7, 0.3), nothing_fraction=0.25))
    assert "segments share 25.0 % of the pixels" in caplog.text and "train with --task regions" in caplog.text


def test_textures_get_full_resolution_and_scenes_get_context(found):
    scene = found_of(Classes.of(["a", "b"]), (np.arange(40)[:, None] > 18).astype(int) + np.zeros((1, 60), int))
    assert {type(network) for network in Semantic().candidates(found, from_scratch=True)} == {unet.Config}
    assert {type(network) for network in Semantic().candidates(scene, from_scratch=True)} == {segformer.Config}


def test_volumes_get_the_stages_of_nnunet():
    classes = Classes.of(["a", "b"])
    cube, thick, slice_ = (
        found_of(classes, np.arange(np.prod(shape)).reshape(shape) % 2) for shape in ((35, 50, 36), (9, 48, 48), (1, 48, 48))
    )
    thick = replace(thick, spacing_mm=(5.0, 1.0, 1.0))
    small, large = Semantic().candidates(cube, from_scratch=True)
    assert small.features == (16, 32, 64, 128) and large.features == (32, 64, 128, 256)
    assert small.strides == large.strides == ((2, 2, 2),) * 3 and small.kernels == ((3, 3, 3),) * 4
    assert small.encoder_blocks == (1, 2, 2, 2) and small.decoder_blocks == (1, 1, 1)
    network = Semantic().candidates(thick, from_scratch=False)[0]
    assert network.strides[:2] == ((1, 2, 2),) * 2 and network.kernels[:2] == ((1, 3, 3),) * 2
    network = Semantic().candidates(slice_, from_scratch=False)[0]
    assert {stage[0] for stage in network.strides} == {1} and network.kernels[0] == (1, 3, 3)


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 4, 6), (2, 30, 30)])
def test_networks_for_small_volumes_can_be_built_and_asked(shape):
    found = found_of(Classes.of(["a", "b"]), np.arange(np.prod(shape)).reshape(shape) % 2)
    network = Semantic().candidates(found, from_scratch=True)[0].build().eval()
    image = torch.zeros(1, 1, *(-(-side // step) * step for side, step in zip(shape, network.divisors, strict=True)))
    assert network(image).shape[2:] == image.shape[2:]


def test_encoders_whose_trained_weights_lie_here_are_taken(found, monkeypatch):
    scene = found_of(Classes.of(["a", "b"]), (np.arange(40)[:, None] > 18).astype(int) + np.zeros((1, 60), int))
    named = lambda from_scratch: [each.encoder.name for each in Semantic().candidates(scene, from_scratch=from_scratch)]  # noqa: E731
    monkeypatch.setattr(timm, "source", lambda name: "here" if name == "tf_efficientnet_lite1" else None)
    assert named(False) == ["tf_efficientnet_lite1"] and named(True)[0] == "regnetx_002"
    colours, grey = (replace(found, channels={count: 5}) for count in (3, 1))
    assert [each.encoder.name for each in Semantic().candidates(colours, from_scratch=False)] == ["tf_efficientnet_lite1"]
    assert {type(each) for each in Semantic().candidates(grey, from_scratch=False)} == {unet.Config}
    assert {type(each) for each in Semantic().candidates(colours, from_scratch=True)} == {unet.Config}
    monkeypatch.setattr(timm, "source", lambda name: None)
    assert named(False) == named(True)
    assert {type(each) for each in Semantic().candidates(colours, from_scratch=False)} == {unet.Config}


def test_networks_are_made_to_fit():
    fitted = Semantic().fitted(unet.Config(width=8), 5, Classes.of(["a", "b", "c"]))
    assert fitted == unet.Config(width=8, in_channels=5, num_classes=3)


# What it says


def test_outputs_become_classes_on_the_original_grid():
    """A network whose first logit is darkness, seen at twice the size and in tiles, and what it says where it was."""
    image = np.zeros((1, 30, 50), np.uint8)
    image[0, 10:20, 25:40] = 200
    view = Preprocess(channels=1, scale=(2.0, 2.0), normalise=Normalise(mean=(100.0,), std=(1.0,)))(Sample.of("a", image))
    classes = Classes.of(["dark", "bright"])
    run = Run(
        engine=lambda images: (np.concatenate([-images, images], axis=1),),
        classes=classes,
        divisors=(8, 8),
        tile=(32, 32),
        flip_axes=(-1,),
        at_once=4,
    )
    found = Semantic().decode(run, view)
    np.testing.assert_array_equal(found.class_map(), (image[0] > 0).astype(int))
    with pytest.raises(ShapeError, match="gives 2 classes, but there are names for 3"):
        Semantic().decode(replace(run, classes=Classes.of(["a", "b", "c"])), view)
    with pytest.raises(ShapeError, match="2 spatial axes, but the network sees 3"):
        Semantic().decode(replace(run, divisors=(8, 8, 8)), view)


def test_engines_agree_on_the_share_of_the_pixels():
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[0, 1, :2] = 1
    other = logits.copy()
    other[0, 1, 0, 0] = -1
    assert Semantic().agreement((logits,), (logits.copy(),), (4, 4)) == 1
    assert Semantic().agreement((other,), (logits,), (4, 4)) == 15 / 16


# How classes fare


def crop_of(class_map: np.ndarray) -> Sample:
    return Sample.of(
        "a", np.zeros((0, *class_map.shape), np.float32), Segmentation.semantic(class_map, Classes.of(["a", "b", "c"]))
    )


def test_what_the_loss_charges_for_a_class_by_hand():
    class_map = np.zeros((4, 8), int)
    class_map[0], class_map[1, :2], class_map[3] = 1, 2, -1
    charges = Semantic(criterion=CrossEntropy()).charges([crop_of(class_map), crop_of(class_map)], 3)
    assert charges == pytest.approx(np.log(10) * np.array([14, 8, 2]) / 24, abs=1e-4)  # a missed pixel keeps a tenth
    assert isinstance(Semantic(), WeighsClasses)


def test_a_class_that_is_not_there_is_charged_nothing():
    charges = Semantic().charges([crop_of(np.eye(8, dtype=int))], 3)
    assert charges[2] == 0 and charges[1] > 0.1 and charges[0] > charges[1]
    assert (Semantic().charges([crop_of(np.full((8, 8), -1))], 3) == 0).all()


@pytest.mark.parametrize("shape", [(1600, 900), (160, 100, 90)])
def test_of_large_crops_some_pixels_stand_for_all(shape):
    class_map = np.zeros(shape, int)
    class_map[: shape[0] // 4] = 1
    charges = Semantic(criterion=CrossEntropy()).charges([crop_of(class_map)], 3)
    assert charges == pytest.approx(np.log(10) * np.array([0.75, 0.25, 0]), abs=0.02)


def test_against_a_collapse_classes_are_weighted_unless_they_are():
    settings = Semantic(criterion=CrossEntropy()).against_collapse((0.96, 0.04))
    assert settings == (
        "task.criterion.kind=weighted_sum",
        'task.criterion.terms=[{kind = "cross_entropy", class_weights = [0.8651, 4.238]}, {kind = "dice"}]',
    )
    weighted = WeightedSum(terms=(CrossEntropy(class_weights=(1.0, 2.0)),), weights=(1.0,))
    assert (
        Semantic().against_collapse((0.96, 0.04)) == settings
        and Semantic(criterion=weighted).against_collapse((0.96, 0.04)) == ()
    )


def test_networks_of_queries_learn_a_segment_for_each_class():
    seen = []

    class Network:
        OUTPUT = "queries"

        def __call__(self, image, truth, generator):
            seen.append(truth)
            return {"classes": image.sum()}

    maps = np.array([[[0, 0], [2, -1]], [[1, 1], [1, 1]]])
    batch = Semantic().collate([(key, np.zeros((3, 2, 2), np.float32), each) for key, each in zip("ab", maps, strict=True)])
    assert Semantic().loss(Network(), batch, torch.Generator()) == {"classes": 0}
    assert [truth.class_ids.tolist() for truth in seen[0]] == [[0, 2], [1]]
    assert seen[0][0].planes.tolist() == [[[1, 1], [2, -1]]]


def test_queries_are_read_as_classes():
    class_logits, masks = np.zeros((1, 2, 4), np.float32), np.full((1, 2, 2, 4), -9, np.float32)
    class_logits[0, 0, 0] = class_logits[0, 1, 1] = 9
    masks[0, 0, 0] = masks[0, 1, 1] = 9
    outputs, classes = (class_logits, masks), Classes.of(["a", "b", "c"])
    run = Run(engine=lambda images: outputs, classes=classes, divisors=(2, 2), output="queries")
    view = Preprocess()(Sample.of("a", np.zeros((3, 2, 4), np.uint8)))
    assert Semantic().decode(run, view).class_map().tolist() == [[0] * 4, [1] * 4]
    assert Semantic().probabilities(run, view).argmax(axis=0).tolist() == [[0] * 4, [1] * 4]
    assert Semantic().agreement(outputs, outputs, (2, 4)) == 1


def test_networks_are_averaged_by_what_they_give():
    dense, queries = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    dense.divisors, queries.divisors, queries.OUTPUT = (1, 1), (1, 1), "queries"
    assert isinstance(Semantic(), Averages) and isinstance(Semantic(), TellsUncertainty)
    assert isinstance(Semantic().averaged([dense] * 2, temperature=2.0), Ensemble)
    assert isinstance(Semantic().averaged([queries] * 2), QueryEnsemble)
