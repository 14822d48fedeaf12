"""What every file in segwright/models must do; a new file is tested by being there. Axes: B, C, K, *S."""

import copy
import inspect
import re
from dataclasses import fields, replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segwright.core.errors import ShapeError
from segwright.core.lookup import find, names
from segwright.encoders import resnet, swin, timm
from segwright.inference.quiet_openvino import quiet_openvino
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.detections import Detections
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.objects_and_stuff import ObjectsAndStuff
from segwright.layers.point_sampling import WithPoints
from segwright.layers.prompts import PromptedMasks, Prompts
from segwright.layers.query_masks import QueryMasks
from segwright.models import Row, list_models, preset, tasks_of

MODELS = names("segwright.models")
SMALL = {  # the same paths in a tenth of the time
    resnet.Config: {"block": "basic", "depths": (1, 1, 1, 1), "multi_grid": ()},
    swin.Config: {"depths": (2, 1, 1, 1)},  # the second block of a stage moves its windows
}
NARROW = 64  # channels of decoders and heads, a quarter of what is usual: the same paths in a tenth of the time
REGIONS = dict.fromkeys(("proposals", "proposals_in_training", "sampled_regions"), 100)  # of an image, that heads look at
POOLED = ("pspnet", "upernet")  # into 1, 2, 3 and 6 bins, which must come out even for ONNX, as it knows no other
SMALL_PRIORS = (8.0, 16.0, 24.0, 36.0, 56.0)  # pixels, of an image of 64
FEW_OBJECTS = 20
MAY_REST = re.compile(  # parts that get a gradient of 0
    r"pyramid\.|"  # nothing pulls at a level on which no object falls
    r"pixels\.level_embed|"  # at the start, what places to look at do not depend on
    r"decoder\.layers\.0\.attention(_norm)?\."  # queries that begin as zeros have nothing to take in
)
OF_VIDEO = "memory."  # parts that images leave alone; tests/models/test_sam2.py sees that gradients reach them
MASKED = ("eomt", "mask2former")  # networks whose queries look where their masks were
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
HALF_ERROR = 0.03  # of the size of the logits: rounding errors, 2e-3 a layer, add up like noise; a wrong scale gives far more


@cache
def rows() -> list[Row]:
    """The table of models, read once."""
    return list_models()


@cache
def smallest(model: str):
    """The preset of a model with the fewest parameters, for 3 classes; a large encoder or decoder inside it is made smaller."""
    config = preset(min((row for row in rows() if row.file == model), key=lambda row: row.parameters_m).name)
    things = {"things": (0, 1)} if hasattr(config, "things") else {}  # stuff is the third
    config = replace(config, num_classes=3, **things) if hasattr(config, "num_classes") else config
    limits = REGIONS | {each.name: NARROW for each in fields(config) if each.name.endswith("width")}
    config = replace(
        config, **{name: min(getattr(config, name), most) for name, most in limits.items() if hasattr(config, name)}
    )
    if hasattr(config, "has_masks"):
        config = replace(config, has_masks=True)
    if hasattr(config, "max_objects"):
        config = replace(config, max_objects=FEW_OBJECTS)
    if hasattr(config, "prior_sizes"):  # small objects for each level, and no branch that begins at 0, as timm's encoders have
        config = replace(config, prior_sizes=SMALL_PRIORS, encoder=resnet.Config())
    if getattr(network_class(model), "OUTPUT", "") == "queries" and isinstance(config.encoder, timm.Config):
        config = replace(config, encoder=resnet.Config())  # likewise
    if "promptable" in tasks_of(config):  # for the same reason
        config = replace(config, encoder=resnet.Config(output_stride=16))
    encoder = getattr(config, "encoder", None)
    return replace(config, encoder=replace(encoder, **SMALL[type(encoder)])) if type(encoder) in SMALL else config


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """Heads whose width is no setting, made narrow as those whose width is one."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (find("segwright.models", model) for model in MODELS):
            if hasattr(module, "WIDTH"):
                patch.setattr(module, "WIDTH", NARROW)
        yield


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
    """Whether a network of objects says `Detections`, perhaps with stuff as well, and not maps, as flow fields are."""
    return finds_objects(model) and getattr(network_class(model), "OUTPUT", "") in ("", "objects_and_stuff")


def answers_prompts(model: str) -> bool:
    """Whether a network is asked by points, boxes and masks; its `forward` then also takes an image alone."""
    return "prompts" in inspect.signature(network_class(model).forward).parameters


PROMPTABLE = [model for model in MODELS if answers_prompts(model)]
DENSE = [model for model in MODELS if not finds_objects(model) and model not in PROMPTABLE]
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


def prompts_for(net: nn.Module, image: Tensor) -> list[Prompts]:
    """Two prompts for each image, of every kind: points with a place that holds none, boxes, both, and an earlier mask."""
    height, width = image.shape[2:]
    with torch.no_grad():
        sides = copy.deepcopy(net).eval()(image[:1]).mask_logits.shape[3:]
    shares = torch.rand(len(image), 2, 3, 2, generator=torch.Generator().manual_seed(2)).to(image.dtype)
    points = shares * torch.tensor([width, height])
    labels = torch.tensor([1, 0, -1]).expand(len(image), 2, 3)
    boxes = torch.cat([points[:, :, 0] / 2, points[:, :, 1] / 2 + torch.tensor([width, height]) / 2], dim=-1)
    masks = torch.randn(len(image), 2, *sides, generator=torch.Generator().manual_seed(3)).to(image.dtype)
    return [
        Prompts(points, labels),
        Prompts(boxes_xyxy=boxes),
        Prompts(points, labels, boxes),
        Prompts(points, labels, mask_logits=masks),
        Prompts(mask_logits=masks),
    ]


def loss_of(net: nn.Module, image: Tensor) -> Tensor:
    """A loss that any network has."""
    if "prompts" in inspect.signature(net.forward).parameters:
        embedding = net.encode(image)
        asked = [(prompts, multimask) for prompts in prompts_for(net, image) for multimask in (True, False)]
        answers = [net.decode(embedding, prompts, multimask=multimask) for prompts, multimask in asked]
        return torch.stack([(masks - 1).square().mean() + (scores - 1).square().mean() for masks, scores in answers]).sum()
    if "truth" in inspect.signature(net.forward).parameters:
        return torch.stack([*net(image, truth_of(image), torch.Generator().manual_seed(0)).values()]).sum()
    terms = []
    for logits in all_logits(net(image)):
        assert logits.shape[:2] == (len(image), 3)
        terms.append(F.cross_entropy(logits, torch.randint(0, 3, (len(image), *logits.shape[2:]))))
    return torch.stack(terms).sum()


def parts(outputs: Tensor | Detections | QueryMasks | PromptedMasks) -> list[Tensor]:
    """The tensors that a network puts out in evaluation."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def found_again(found: Detections, wanted: Detections | ObjectsAndStuff) -> float:
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
    learning = {
        name: parameter
        for name, parameter in net.named_parameters()
        if parameter.requires_grad and not name.startswith(OF_VIDEO)
    }
    torch.optim.AdamW(learning.values(), lr=1e-3).step()
    assert torch.isfinite(loss)
    for name, parameter in learning.items():
        may_rest = model in OF_OBJECTS and bool(MAY_REST.match(name))
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
    assert isinstance(found, Detections | ObjectsAndStuff)
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
    if isinstance(outputs, Tensor):
        assert outputs.stride(1) == 1  # classes lie innermost; a network may have cut off a row
    allowed = 0.5 if model in MASKED else HALF_ERROR  # half precision changes where queries look, and so the rest
    for got, wanted in zip(parts(outputs), parts(expected), strict=True):
        assert (got.float() - wanted).norm() < allowed * wanted.norm()


@pytest.mark.filterwarnings("ignore")  # tracing warns of each check of a shape, and the exporter of its age
@pytest.mark.parametrize("model", MODELS)
def test_a_file_of_onnx_gives_the_same_answer(model, tmp_path):
    pytest.importorskip("onnx", reason="torch's exporter needs the package onnx: pip install 'segwright[dev]'")
    image = images(model, 1, times=6 if model in POOLED else 2)
    with torch.no_grad():
        expected = network(model)(image)
    torch.onnx.export(network(model), (image,), tmp_path / "network.onnx", dynamo=False)
    compiled = quiet_openvino().Core().compile_model(tmp_path / "network.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = [torch.from_numpy(value) for value in compiled(image.numpy()).values()]
    if says_detections(model):
        assert [part.shape for part in outputs] == [part.shape for part in expected]
        assert found_again(Detections(*outputs[: len(Detections._fields)]), expected) > 0.9  # the rest changed places
        for logits, wanted in zip(outputs[len(Detections._fields) :], expected[len(Detections._fields) :], strict=True):
            torch.testing.assert_close(logits, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())
        return
    for got, wanted in zip(outputs, parts(expected), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


@pytest.mark.parametrize("model", PROMPTABLE)
def test_prompts_of_one_embedding_are_answered_as_each_alone(model):
    net, image = copy.deepcopy(network(model)).double(), images(model).double()
    with torch.no_grad():
        embedding = net.encode(image)
        before = embedding.clone()
        for prompts in prompts_for(net, image):
            for multimask, count in ((True, 3), (False, 1)):
                masks, scores = net.decode(embedding, prompts, multimask=multimask)
                assert masks.shape[:3] == scores.shape == (len(image), 2, count)
                assert masks.shape[3] * image.shape[3] == masks.shape[4] * image.shape[2]
                for one, index in ((one, index) for one in range(len(image)) for index in range(2)):
                    alone = Prompts(*[None if part is None else part[one, index][None, None] for part in prompts])
                    answer = net.decode(net.encode(image[one, None]), alone, multimask=multimask)
                    torch.testing.assert_close(answer.mask_logits[0, 0], masks[one, index], rtol=1e-9, atol=1e-9)
                    torch.testing.assert_close(answer.scores[0, 0], scores[one, index], rtol=1e-9, atol=1e-9)
            assert all(map(torch.equal, net(image, prompts), net.decode(embedding, prompts)))
        assert torch.equal(embedding, before)


@pytest.mark.parametrize("model", PROMPTABLE)
def test_a_prompt_says_something_and_the_order_of_its_points_does_not(model):
    net, image = copy.deepcopy(network(model)).double(), images(model, 1).double()
    with torch.no_grad():
        embedding = net.encode(image)
        answers = [net.decode(embedding, prompts).mask_logits for prompts in (None, *prompts_for(net, image))]
        assert all(not torch.allclose(one[:, 0], other[:, 0]) for one in answers for other in answers if one is not other)
        points, labels, *_ = prompts_for(net, image)[0]
        turned = net.decode(embedding, Prompts(points.flip(2), labels.flip(2))).mask_logits
        torch.testing.assert_close(turned, answers[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", PROMPTABLE)
def test_prompts_that_do_not_go_together_are_refused(model):
    net, image = network(model), images(model)
    points, labels, boxes, _ = prompts_for(net, image)[2]
    with torch.no_grad():
        embedding = net.encode(image)
        with pytest.raises(ShapeError, match="points but no labels; give both"):
            net.decode(embedding, Prompts(points))
        with pytest.raises(ShapeError, match="boxes_xyxy are of 2 images with 1 prompts"):
            net.decode(embedding, Prompts(points, labels, boxes[:, :1]))
        with pytest.raises(ShapeError, match="1 images with 2 prompts, but there are 2 images"):
            net.decode(embedding, Prompts(points[:1], labels[:1]))
