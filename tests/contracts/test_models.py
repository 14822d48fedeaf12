"""What every file in segwright/models must do; a new file is tested by being there. Axes: B, C, K, *S."""

import re
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from segwright.core.errors import ShapeError
from segwright.core.lookup import find, names
from segwright.layers.auxiliary import WithAuxiliary

MODELS = names("segwright.models")


@cache
def smallest(model: str):
    """The preset of a model with the fewest parameters, for 3 classes."""
    with torch.device("meta"):
        sizes = {
            name: sum(parameter.numel() for parameter in config.build().parameters())
            for name, config in find("segwright.models", model).PRESETS.items()
        }
    return replace(find("segwright.models", model).PRESETS[min(sizes, key=sizes.__getitem__)], num_classes=3)


@cache
def network(model: str):
    torch.manual_seed(0)
    return smallest(model).build()


def images(model: str, count: int = 2, *, more: int = 0) -> torch.Tensor:
    """Images of the smallest sides that leave every map more than one pixel."""
    sides = (2 * divisor + more for divisor in network(model).divisors)
    return torch.randn(count, smallest(model).in_channels, *sides, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", MODELS)
def test_the_file_says_what_it_is(model):
    module = find("segwright.models", model)
    assert re.match(r".+ \(.+ \d{4}, (arXiv|doi) \S+\)\.$", module.__doc__.splitlines()[0])  # title (authors year, source).
    assert "Axes:" in module.__doc__
    assert module.PRESETS


@pytest.mark.parametrize("model", MODELS)
def test_one_training_step_changes_every_weight_and_makes_no_nan(model):
    torch.manual_seed(0)  # of stochastic depth, which may leave a block out of a step
    net = smallest(model).build().train()
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    image = images(model)
    outputs = net(image)
    heads = (outputs.logits, *outputs.auxiliary) if isinstance(outputs, WithAuxiliary) else (outputs,)
    assert all(logits.shape[:2] == (2, 3) for logits in heads)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    loss = sum(F.cross_entropy(logits, torch.randint(0, 3, (2, *logits.shape[2:]))) for logits in heads)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter).all(), name
        assert not torch.equal(parameter, before[name]), name
    again = net(image)
    assert torch.isfinite(again.logits if isinstance(again, WithAuxiliary) else again).all()


@pytest.mark.parametrize("model", MODELS)
def test_the_same_answer_in_a_batch_and_alone(model):
    net, image = network(model).eval(), images(model)
    with torch.no_grad():
        alone = torch.cat([net(one[None]) for one in image])
        torch.testing.assert_close(net(image), alone, rtol=1e-4, atol=1e-4)  # single precision through a hundred layers


@pytest.mark.parametrize("model", MODELS)
def test_the_output_stride_divides_the_sides(model):
    with torch.no_grad():
        image = images(model, 1)
        logits = network(model).eval()(image)
    strides = {given / got for given, got in zip(image.shape[2:], logits.shape[2:], strict=True)}
    assert len(strides) == 1 and strides.pop() in (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize("model", MODELS)
def test_save_and_load_give_the_same_answer(model, tmp_path):
    net, image = network(model).eval(), images(model, 1)
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    with torch.device("meta"):
        other = smallest(model).build().eval()
    loaded = load_file(tmp_path / "weights.safetensors")  # maps the file: where a tensor lies in it decides its last bit
    other.load_state_dict({name: tensor.clone() for name, tensor in loaded.items()}, assign=True)
    with torch.no_grad():
        assert torch.equal(other(image), net(image))


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_gives_the_same_weights_and_the_network_stays_as_it_was(model):
    torch.manual_seed(0)
    again = smallest(model).build()
    before = {name: tensor.clone() for name, tensor in network(model).state_dict().items()}
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in before.items())
    with torch.no_grad():
        network(model).eval()(images(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network(model).state_dict().items())


@pytest.mark.parametrize("model", MODELS)
def test_a_wrong_shape_is_refused_and_the_remedy_works(model):
    net = network(model).eval()
    wrong = images(model, 1, more=1)
    with pytest.raises(ShapeError, match=f"needs sides divisible by {net.divisors[0]}; pad them to") as error:
        net(wrong)
    sides = [int(side) for side in re.search(r"pad them to ([\d x]+)", str(error.value))[1].split(" x ")]
    padding = [n for given, wanted in zip(wrong.shape[:1:-1], sides[::-1], strict=True) for n in (0, wanted - given)]
    with torch.no_grad():
        net(F.pad(wrong, padding))


@pytest.mark.parametrize("model", MODELS)
def test_a_wrong_number_of_channels_is_refused_and_the_remedy_works(model):
    image = images(model, 1)
    image = torch.cat([image, image], dim=1)
    with pytest.raises(ShapeError, match=rf"have {image.shape[1]} channels, .* build it with in_channels={image.shape[1]}"):
        network(model)(image)
    with torch.no_grad():
        replace(smallest(model), in_channels=image.shape[1]).build().eval()(image)


@pytest.mark.parametrize("model", MODELS)
def test_an_image_without_a_batch_is_refused_and_the_remedy_works(model):
    with pytest.raises(ShapeError, match=r"add a batch axis with image\[None\]"):
        network(model)(images(model)[0])
    with torch.no_grad():
        network(model).eval()(images(model)[0][None])
