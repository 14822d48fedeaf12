import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from segwright.core.errors import SettingError, ShapeError
from segwright.losses.cross_entropy import CrossEntropy

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "losses_a.safetensors")


def logits_and_target(shape=(2, 5, 9, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    return logits, torch.randint(-1, shape[1], (shape[0], *shape[2:]), generator=generator)


# By hand


def test_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 7.0]])[None, :, None]  # (1, 2, 1, 2)
    target = torch.tensor([[[1, -1]]])
    assert CrossEntropy()(logits, target).item() == pytest.approx(math.log(4 / 3))  # p = 3 / 4; the other pixel is void


def test_weights_make_it_a_weighted_mean():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), math.log(3)]])[None, :, None]
    loss = CrossEntropy(class_weights=(1.0, 3.0))(logits, torch.tensor([[[0, 1]]]))
    assert loss.item() == pytest.approx((math.log(4) + 3 * math.log(4 / 3)) / 4)


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 3.0, 4.0, 5.0), (0.0,) * 5])
def test_nothing_but_void_is_zero_with_zero_gradient(weights):
    logits, target = logits_and_target()
    loss = CrossEntropy(class_weights=weights)(logits, torch.full_like(target, -1))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0


# By a slow twin


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 0.1, 3.0)])
@pytest.mark.parametrize("shape", [(2, 5, 9, 7), (2, 5, 4, 6, 3)])
def test_channels_last_changes_nothing(shape, weights):
    logits, target = logits_and_target(shape)
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    other = logits.detach().contiguous(memory_format=layout).requires_grad_()
    losses = [CrossEntropy(class_weights=weights)(each, target) for each in (logits, other)]
    torch.stack(losses).sum().backward()
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(other.grad, logits.grad)


@pytest.mark.parametrize("shape", [(2, 5, 9, 7), (1, 5, 4, 6, 3)])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 0.1, 3.0)])
def test_equals_torch(shape, weights):
    logits, target = logits_and_target(shape)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    twin = F.cross_entropy(logits, target, tensor, ignore_index=-1)
    torch.testing.assert_close(CrossEntropy(class_weights=weights)(logits, target), twin)


def test_equals_the_golden_value_and_gradient():
    logits = GOLDEN["in/logits"].requires_grad_()
    loss = CrossEntropy()(logits, GOLDEN["in/target"])
    loss.backward()
    torch.testing.assert_close(loss, GOLDEN["out/smp.softce.value"][0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(logits.grad, GOLDEN["out/smp.softce.grad"], rtol=1e-8, atol=1e-10)


# By a law


def test_a_constant_added_to_all_logits_changes_nothing():
    logits, target = logits_and_target()
    torch.testing.assert_close(CrossEntropy()(logits + 30, target), CrossEntropy()(logits, target))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_give_the_float32_loss_of_their_values(dtype):
    logits, target = logits_and_target()
    half = (logits.detach() * 20).to(dtype).to(memory_format=torch.channels_last)
    loss = CrossEntropy()(half, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, CrossEntropy()(half.float(), target))


# By its messages


def test_wrong_settings_and_shapes_name_the_remedy():
    logits, target = logits_and_target()
    with pytest.raises(SettingError, match="0 or more for each class"):
        CrossEntropy(class_weights=(1.0, -1.0))
    with pytest.raises(ShapeError, match="2 class weights and 5 classes; give one weight per class"):
        CrossEntropy(class_weights=(1.0, 2.0))(logits, target)
    with pytest.raises(ShapeError, match=r"upsample the logits first"):
        CrossEntropy()(logits[..., ::2, ::2], target)
    small = F.interpolate(logits[..., ::2, ::2], target.shape[1:], mode="bilinear")  # the remedy
    assert CrossEntropy()(small, target).isfinite()


# Against other libraries


WEIGHTS = (0.7735114693641663, 0.59398353099823, 1.3121075630187988, 0.6469324827194214)  # of the golden case


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("torch.ce", {"class_weights": WEIGHTS, "label_smoothing": 0.1}),
        ("smp.softce", {}),
        ("smp.softce.smooth", {"label_smoothing": 0.1}),
    ],
)
def test_equals_golden_cases(golden, name, settings):
    golden(name, CrossEntropy(**settings))


def test_equals_smp_but_for_the_void_pixels_in_its_mean(golden):
    known = (golden.target("target_ignore") >= 0).double().mean()
    golden("smp.softce.smooth.ignore", CrossEntropy(label_smoothing=0.1), times=known)


@pytest.mark.parametrize("shape", [(2, 5, 9, 7), (1, 5, 4, 6, 3)])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 0.1, 3.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_equals_torch_in_value_and_gradient(case, same, shape, weights, smoothing):
    logits, target = case(shape)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    same(
        lambda x: CrossEntropy(class_weights=weights, label_smoothing=smoothing)(x, target),
        lambda x: F.cross_entropy(x, target, tensor, ignore_index=-1, label_smoothing=smoothing),
        logits,
    )


@pytest.mark.parametrize("settings", [{}, {"class_weights": (1.0, 0.5, 2.0, 1.0)}, {"label_smoothing": 0.1}])
def test_keeps_the_laws(laws, settings):
    def loss(logits, target):
        given = dict(settings)
        if "class_weights" in given:
            given["class_weights"] = given["class_weights"][: logits.shape[1]]
        return CrossEntropy(**given)(logits, target)

    laws(loss, symmetric="class_weights" not in settings)


def test_a_log_probability_that_underflows_is_exact():
    logits = torch.tensor([[[-100.0]], [[100.0]]])[None]  # p = e^-200
    assert CrossEntropy()(logits, torch.zeros(1, 1, 1, dtype=torch.int64)).item() == 200


def test_a_wrong_smoothing_is_named():
    with pytest.raises(SettingError, match="0 or more and below 1, such as 0.1"):
        CrossEntropy(label_smoothing=1.0)
