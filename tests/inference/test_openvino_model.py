import numpy as np
import pytest
import torch
from torch import nn

from segwright.inference.openvino_model import WEIGHT, openvino_model
from segwright.inference.quiet_openvino import quiet_openvino


class Net(nn.Module):
    """A convolution, one into which a norm is folded, a square matrix that is read both ways, and a tensor of another dtype."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        nn.init.normal_(self.norm.running_mean)
        self.square = nn.Parameter(torch.randn(8, 8))
        self.gain = nn.Parameter(torch.randn(8, dtype=torch.bfloat16))
        self.calls = 0

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        pixels = self.norm(self.second(self.first(image))).flatten(2).transpose(1, 2)
        return pixels @ self.square, pixels @ self.square.T * self.gain.float()


BATCH = np.random.default_rng(0).standard_normal((1, 3, 9, 10), dtype=np.float32)


def shared_with(model, network: nn.Module) -> set[str]:
    """The tensors of a network in whose memory a model reads."""
    tensors = network.state_dict()
    named = {node.get_friendly_name(): node for node in model.get_ops() if node.get_type_name() == "Constant"}
    pairs = [(name.removeprefix(WEIGHT), each.data) for name, each in named.items() if name.startswith(WEIGHT)]
    return {name for name, values in pairs if values.ctypes.data == tensors[name].data_ptr()}


def outputs_of(model) -> list[np.ndarray]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found = quiet_openvino().Core().compile_model(model, "CPU", settings)({0: BATCH})
    return [found[number].copy() for number in range(len(found))]


@pytest.fixture
def network() -> Net:
    return Net().eval()


@pytest.fixture
def folder(network, tmp_path):
    """A folder with the model."""
    openvino_model(network, BATCH, bfloat16=False, folder=tmp_path)
    return tmp_path


def test_weights_as_they_are_need_no_memory_of_their_own(network, folder):
    again = Net().eval()
    read = openvino_model(again, BATCH, bfloat16=False, folder=folder)
    fresh = openvino_model(network, BATCH, bfloat16=False, folder=None)
    for model, own in ((read, again), (fresh, network)):
        assert {"first.weight", "square"} <= shared_with(model, own) <= {*own.state_dict()} - {"gain", "second.weight"}
    assert again.calls == 0
    with torch.inference_mode():
        wanted = [each.numpy() for each in again(torch.from_numpy(BATCH))]
    for model in (read, fresh):
        for found, each in zip(outputs_of(model), wanted, strict=True):
            np.testing.assert_allclose(found, each, atol=1e-4)


def test_weights_that_the_network_has_elsewhere_are_those_of_the_file(network, folder):
    network.square.data = network.square.data.T.contiguous().T  # the same values, in columns
    model = openvino_model(network, BATCH, bfloat16=False, folder=folder)
    assert "square" not in shared_with(model, network) and "first.weight" in shared_with(model, network)
    with torch.inference_mode():
        np.testing.assert_allclose(outputs_of(model)[0], network(torch.from_numpy(BATCH))[0].numpy(), atol=1e-4)


def test_a_network_in_training_is_converted_as_in_evaluation_and_shares_its_weights(network):
    wanted = outputs_of(openvino_model(network, BATCH, bfloat16=False, folder=None))
    model = openvino_model(network.train(), BATCH, bfloat16=False, folder=None)
    assert network.training and network.norm.training and "first.weight" in shared_with(model, network)
    np.testing.assert_allclose(outputs_of(model)[0], wanted[0], atol=1e-5)


def test_a_model_outlives_the_network(folder):
    model = openvino_model(Net().eval(), BATCH, bfloat16=False, folder=folder)
    first = outputs_of(model)
    for _ in range(20):  # whoever takes memory now would get that of the network
        torch.full((3, 8, 8), torch.nan)
    np.testing.assert_array_equal(outputs_of(model)[0], first[0])


def test_what_is_kept_is_whole_or_not_there(network, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["network.bin", "network.xml"]
