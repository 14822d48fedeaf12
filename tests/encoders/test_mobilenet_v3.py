"""MobileNetV3. Axes: B, C, H, W."""

import pytest
import torch

from segwright.core.errors import FormatError
from segwright.encoders import mobilenet_v3


def reference(*, dilated: bool) -> torch.nn.Module:
    """torchvision's, with norms that must really be applied."""
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_large(weights=None, dilated=dilated)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return network.double()


@pytest.mark.parametrize(("output_stride", "sides"), [(16, (65, 43)), (32, (64, 96))])
@pytest.mark.parametrize("training", [False, True])
def test_equals_torchvision_live(output_stride, sides, training):
    theirs = reference(dilated=output_stride == 16).train(training)
    ours = mobilenet_v3.Config(output_stride=output_stride).build().double().train(training)
    ours.load_state_dict(mobilenet_v3.rename(theirs.state_dict()))
    x = image = torch.randn(2, 3, *sides, dtype=torch.float64)
    wanted = []
    for number, part in enumerate(theirs.features):
        x = part(x)
        if number in (1, 2, 4, 7, 16):  # where torchvision's segmentation networks look, and the first block
            wanted.append(x)
    maps = ours(image)
    for level, other, channels, stride in zip(maps, wanted, ours.channels, ours.strides, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-9, atol=1e-9)
        assert level.shape[1:] == (channels, *(-(-side // stride) for side in sides))
    if training:  # gradients, and the momentum of the norms
        maps[-1].square().mean().backward()
        wanted[-1].square().mean().backward()
        gradients = {name: parameter.grad for name, parameter in theirs.named_parameters() if name.startswith("features")}
        for name, parameter in ours.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-7, atol=1e-10, msg=name)
        state = theirs.state_dict()
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(tensor, state[name], rtol=1e-9, atol=1e-9, msg=name)


def test_the_gate_weighs_channels_by_hand():
    gate = mobilenet_v3.Config().build().features[4].block[2]  # the first one, of 72 channels
    for tensor in gate.parameters():
        torch.nn.init.zeros_(tensor)
    x = torch.randn(1, 72, 3, 5)
    torch.testing.assert_close(gate(x), x / 2)  # the hard sigmoid of 0
    gate.fc2.bias.data[2:] = 3.0
    gate.fc2.bias.data[:2] = -3.0
    torch.testing.assert_close(gate(x)[:, 2:], x[:, 2:])
    assert not gate(x)[:, :2].any()


def test_gates_are_as_narrow_as_published():
    blocks = [layer.block for layer in mobilenet_v3.Config().build().features[1:16]]
    gates = [part for block in blocks for part in block if hasattr(part, "fc1")]
    assert [gate.fc1.out_channels for gate in gates] == [24, 32, 32, 120, 168, 168, 240, 240]  # 72 / 4 = 18 becomes 24


def test_other_channels_can_be_taken():
    encoder = mobilenet_v3.PRESETS["mobilenet_v3_large"].build(in_channels=5)
    assert [level.shape[1:] for level in encoder(torch.randn(2, 5, 64, 96))] == [
        (16, 32, 48), (24, 16, 24), (40, 8, 12), (80, 4, 6), (960, 2, 3)
    ]  # fmt: skip


def test_rename_leaves_the_classifier_out_and_refuses_strangers():
    ours = mobilenet_v3.Config().build().state_dict()
    state = reference(dilated=False).state_dict()
    assert mobilenet_v3.rename(state).keys() == ours.keys()
    for key in ("features.4.block.2.fc3.weight", "classifier.1.weight", "head.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no MobileNetV3 has"):
            mobilenet_v3.rename(state | {key: torch.zeros(1)})
