"""What every file in segwright/models must do; a new file is tested by being there. Axes: B, C, K, *S."""

import copy
import inspect
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segwright.core.errors import ShapeError
from segwright.core.lookup import find, names
from segwright.encoders import resnet, swin
from segwright.inference.quiet_openvino import quiet_openvino
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.detections import Detections
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.point_sampling import WithPoints

MODELS = names("segwright.models")
SMALL = {  # the same paths in a tenth of the time
    resnet.Config: {"block": "basic", "depths": (1, 1, 1, 1), "multi_grid": ()},
    swin.Config: {"depths": (2, 1, 1, 1)},  # the second block of a stage moves its windows
}
SMALL_DECODER = 64  # channels
SMALL_PRIORS = (8.0, 16.0, 24.0, 36.0, 56.0)  # pixels, of an image of 64
FEW_OBJECTS = 20
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
HALF_ERROR = 0.03  # of the size of the logits: rounding errors, 2e-3 a layer, add up like noise; a wrong scale gives far more


@cache
def smallest(model: str):
    """The preset of a model with the fewest parameters, for 3 classes; a large encoder or decoder inside it is made smaller."""
    presets = find("segwright.models", model).PRESETS
    with torch.device("meta"):
        sizes = {name: sum(weight.numel() for weight in config.build().parameters()) for name, config in presets.items()}
    config = replace(presets[min(sizes, key=sizes.__getitem__)], num_classes=3)
    if hasattr(config, "decoder_width"):
        config = replace(config, decoder_width=SMALL_DECODER)
    if hasattr(config, "has_masks"):
        config = replace(config, has_masks=True)
    if hasattr(config, "max_objects"):
        config = replace(config, max_objects=FEW_OBJECTS)
    if hasattr(config, "prior_sizes"):  # small objects for each level, and no branch that begins at 0, as timm's encoders have
        config = replace(config, prior_sizes=SMALL_PRIORS, encoder=resnet.Config())
    encoder = getattr(config, "encoder", None)
    return replace(config, encoder=replace(encoder, **SMALL[type(encoder)])) if type(encoder) in SMALL else config


@cache
def network(model: str):
    torch.manual_seed(0)
    return smallest(model).build().eval()


def images(model: str, count: int = 2, *, times: int = 2) -> Tensor:
    """Images of the smallest sides that leave every map more than one pixel, or of `times` the divisors."""
    sides = (times * divisor for divisor in network(model).divisors)
    return torch.randn(count, smallest(model).in_channels, *sides, generator=torch.Generator().manual_seed(1))


def network_class(model: str) -> type[nn.Module]:
    """The class of a network."""
    module = find("segwright.models", model)
    return getattr(module, inspect.signature(module.Config.build).return_annotation.strip("'\""))


def finds_objects(model: str) -> bool:
    """Whether a network learns from the truth it is given; others say logits."""
    return "truth" in inspect.signature(network_class(model).forward).parameters


def says_detections(model: str) -> bool:
    """Whether a network of objects says `Detections`, and not maps, as flow fields are."""
    return finds_objects(model) and getattr(network_class(model), "OUTPUT", "") != "flows"


DENSE = [model for model in MODELS if not finds_objects(model)]
OF_OBJECTS = [model for model in MODELS if finds_objects(model)]
OF_DETECTIONS = [model for model in MODELS if says_detections(model)]


def truth_of(image: Tensor) -> list[ObjectTruth]:
    """Objects for each image: two classes in the first, of which one lies on the other, and a third class in the others."""
    height, width = image.shape[2:]
    truth = []
    for number in range(len(image)):
        planes = torch.zeros(2, height, width, dtype=torch.int32)
        planes[0, height // 8 : height // 2, width // 8 : width // 2] = 1
        boxes = [[width // 8, height // 8, width // 2, height // 2]]
        if number == 0:
            planes[1, height // 4 : height, width // 4 : width * 3 // 4] = 2
            boxes.append([width // 4, height // 4, width * 3 // 4, height])
        class_ids = torch.tensor([0, 1] if number == 0 else [2])
        truth.append(ObjectTruth(torch.tensor(boxes).float(), class_ids, planes))
    return truth


def loss_of(net: nn.Module, image: Tensor) -> Tensor:
    """A loss that any network has."""
    if "truth" in inspect.signature(net.forward).parameters:
        return torch.stack([*net(image, truth_of(image), torch.Generator().manual_seed(0)).values()]).sum()
    terms = []
    for logits in all_logits(net(image)):
        assert logits.shape[:2] == (len(image), 3)
        terms.append(F.cross_entropy(logits, torch.randint(0, 3, (len(image), *logits.shape[2:]))))
    return torch.stack(terms).sum()


def parts(outputs: Tensor | Detections) -> list[Tensor]:
    """The tensors that a network puts out in evaluation."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def found_again(found: Detections, wanted: Detections) -> float:
    """The share of the objects of one image that are found again: with their class, their score, and their place.

    Rounding changes the order of objects of about one score, and which of two that overlap is dropped.
    """
    count = int((wanted.scores > 0).sum())
    again = 0
    for place in range(count):
        is_same = (found.class_ids == wanted.class_ids[:, place, None]) & (found.scores > 0)
        is_same &= (found.scores - wanted.scores[:, place, None]).abs() < 1e-3
        is_same &= ((found.boxes - wanted.boxes[:, place, None]).abs() < 0.1).all(-1)
        again += bool(is_same.any())
    return again / count if count else float(not (found.scores > 0).any())


def all_logits(outputs: Tensor | WithAuxiliary | WithPoints) -> list[Tensor]:
    """The logits of a network in training, those of auxiliary heads or of single points behind them."""
    if isinstance(outputs, WithPoints):
        return [outputs.logits, outputs.point_logits]
    return [outputs.logits, *outputs.auxiliary] if isinstance(outputs, WithAuxiliary) else [outputs]


@pytest.mark.parametrize("model", MODELS)
def test_the_file_says_what_it_is(model):
    module = find("segwright.models", model)
    assert re.match(r".+ \(.+ \d{4}, (arXiv|doi) \S+\)\.$", module.__doc__.splitlines()[0])  # title (authors year, source).
    assert "Axes:" in module.__doc__
    assert module.PRESETS


@pytest.mark.parametrize("model", MODELS)
def test_gradients_reach_every_parameter_and_one_step_changes_them_all(model):
    torch.manual_seed(0)  # of dropout and stochastic depth, which may leave a layer out
    net = copy.deepcopy(network(model)).train()
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    image = images(model)
    loss = loss_of(net, image)
    loss.backward()
    learning = {name: parameter for name, parameter in net.named_parameters() if parameter.requires_grad}
    torch.optim.AdamW(learning.values(), lr=1e-3).step()
    assert torch.isfinite(loss)
    for name, parameter in learning.items():
        may_rest = model in OF_OBJECTS and name.startswith("pyramid.")  # nothing pulls at a level on which no object falls
        assert parameter.grad is not None and (may_rest or parameter.grad.any()), f"no gradient reaches {name}"
        assert torch.isfinite(parameter).all(), name
        assert may_rest or not torch.equal(parameter, before[name]), name
    assert torch.isfinite(loss_of(net, image))


@pytest.mark.parametrize("model", OF_OBJECTS)
def test_losses_draw_from_the_generator_alone(model):
    net, image = copy.deepcopy(network(model)).train(), images(model)
    with torch.no_grad():
        before = torch.get_rng_state()
        first, again = (net(image, truth_of(image), torch.Generator().manual_seed(0)) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
    assert first.keys() == again.keys() and all(term.shape == () for term in first.values())
    if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):  # these remember the first
        assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("model", OF_OBJECTS)
def test_an_image_without_objects_has_losses_and_gradients(model):
    net, image = copy.deepcopy(network(model)).train(), images(model)
    nothing = ObjectTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(1, *image.shape[2:]).int())
    terms = net(image, [nothing] * len(image), torch.Generator().manual_seed(0))
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    for name, parameter in net.named_parameters():  # which DDP waits for
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("model", OF_DETECTIONS)
def test_objects_have_places_of_a_known_number(model):
    image = images(model)
    height, width = image.shape[2:]
    with torch.no_grad():
        found = network(model)(image)
    assert isinstance(found, Detections)
    assert found.boxes.shape == found.regions.shape == (2, FEW_OBJECTS, 4) and found.masks.shape[:2] == (2, FEW_OBJECTS)
    assert found.scores.shape == found.class_ids.shape == (2, FEW_OBJECTS)
    assert found.class_ids.dtype == torch.int64 and 0 <= found.class_ids.min() <= found.class_ids.max() < 3
    assert (found.scores.diff(dim=1) <= 0).all() and found.scores.min() >= 0 and found.scores.max() <= 1
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([width, height] * 2)).all()
    assert found.masks.min() >= 0 and found.masks.max() <= 1


@pytest.mark.parametrize("model", DENSE)
def test_auxiliary_heads_answer_in_training_alone(model):
    with torch.no_grad():
        outputs = copy.deepcopy(network(model)).train()(images(model))
        assert isinstance(network(model)(images(model)), Tensor)
    if isinstance(outputs, WithAuxiliary):
        assert len(outputs.auxiliary) == len(outputs.weights) > 0
        assert all(0 < weight < 1 for weight in outputs.weights)


@pytest.mark.parametrize("model", MODELS)
def test_the_same_answer_in_a_batch_and_alone(model):
    net, image = network(model), images(model)
    if finds_objects(model):  # of which rounding changes the order
        net, image = copy.deepcopy(net).double(), image.double()
    with torch.no_grad():
        alone = zip(*[parts(net(one[None])) for one in image], strict=True)
        for together, each in zip(parts(net(image)), alone, strict=True):
            torch.testing.assert_close(together, torch.cat(each), rtol=1e-4, atol=1e-4)  # through a hundred layers


@pytest.mark.parametrize("model", DENSE)
def test_the_output_stride_divides_the_sides(model):
    with torch.no_grad():
        image = images(model, 1)
        logits = network(model)(image)
    strides = {given / got for given, got in zip(image.shape[2:], logits.shape[2:], strict=True)}
    assert len(strides) == 1 and strides.pop() in (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize("model", MODELS)
def test_save_and_load_give_the_same_answer(model, tmp_path):
    net, image = network(model), images(model, 1)
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    with torch.device("meta"):
        other = smallest(model).build().eval()
    loaded = load_file(tmp_path / "weights.safetensors")  # maps the file: where a tensor lies in it decides its last bit
    other.load_state_dict({name: tensor.clone() for name, tensor in loaded.items()}, assign=True)
    with torch.no_grad():
        assert all(map(torch.equal, parts(other(image)), parts(net(image))))


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_gives_the_same_weights_and_the_network_stays_as_it_was(model):
    torch.manual_seed(0)
    again = smallest(model).build()
    before = {name: tensor.clone() for name, tensor in network(model).state_dict().items()}
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in before.items())
    with torch.no_grad():
        network(model)(images(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network(model).state_dict().items())


@pytest.mark.parametrize("model", MODELS)
def test_a_wrong_side_is_refused_along_each_axis_and_the_remedy_works(model):
    net, image = network(model), images(model, 1)
    assert len(net.divisors) == image.ndim - 2
    for axis in range(2, image.ndim):
        wrong = torch.cat([image, image.narrow(axis, 0, 1)], dim=axis)
        with pytest.raises(ShapeError, match=f"needs sides divisible by {net.divisors[0]}.*; pad them to") as error:
            net(wrong)
        sides = [int(side) for side in re.search(r"pad them to ([\d x]+)", str(error.value))[1].split(" x ")]
        divisor = net.divisors[axis - 2]
        assert sides == [side + (divisor if each == axis else 0) for each, side in enumerate(image.shape[2:], start=2)]
        padding = [n for given, wanted in zip(wrong.shape[:1:-1], sides[::-1], strict=True) for n in (0, wanted - given)]
        with torch.no_grad():
            assert all(part.isfinite().all() for part in parts(net(F.pad(wrong, padding))))


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
        network(model)(images(model)[0][None])


@pytest.mark.parametrize("model", MODELS)
def test_bfloat16_with_channels_last_stays_near_float32_and_copies_into_no_other_layout(model):
    image = images(model, 2, times=4)  # more than one pixel along each axis of each map tells layouts apart
    layout = LAYOUTS[image.ndim - 2]
    net = copy.deepcopy(network(model)).to(memory_format=layout)
    strangers: list[str] = []

    def watch(name: str):
        def look(_, inputs):
            if not inputs[0].is_contiguous(memory_format=layout):
                strangers.append(name)

        return look

    for name, module in net.named_modules():
        if isinstance(module, CONVOLUTIONS):
            module.register_forward_pre_hook(watch(name))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = net(image.contiguous(memory_format=layout))
    assert strangers == []
    if says_detections(model):  # half precision changes which are found
        assert all(part.isfinite().all() for part in outputs) and outputs.boxes.dtype == torch.float32
        return
    with torch.no_grad():
        expected = network(model)(image)
    assert outputs.stride(1) == 1  # classes lie innermost; a network may have cut off a row
    assert (outputs.float() - expected).norm() < HALF_ERROR * expected.norm()


@pytest.mark.filterwarnings("ignore")  # tracing warns of each check of a shape, and the exporter of its age
@pytest.mark.parametrize("model", MODELS)
def test_a_file_of_onnx_gives_the_same_answer(model, tmp_path):
    pytest.importorskip("onnx", reason="torch's exporter needs the package onnx: pip install 'segwright[dev]'")
    image = images(model, 1, times=6)  # pooling into 1, 2, 3 and 6 bins must come out even: ONNX knows no other
    with torch.no_grad():
        expected = network(model)(image)
    torch.onnx.export(network(model), (image,), tmp_path / "network.onnx", dynamo=False)
    compiled = quiet_openvino().Core().compile_model(tmp_path / "network.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = [torch.from_numpy(value) for value in compiled(image.numpy()).values()]
    if says_detections(model):
        assert [part.shape for part in outputs] == [part.shape for part in expected]
        assert found_again(Detections(*outputs), expected) > 0.9  # the rest changed places
        return
    (logits,) = outputs
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
