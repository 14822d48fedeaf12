"""DETR's layers. Axes: B, Q, N, E."""

import pytest
import torch
from torch import Tensor, nn

from segwright.layers.detr_layers import DetrDecoderLayer, DetrEncoderLayer


def torchs(layer: nn.Module) -> nn.Module:
    """torch's own layer with the same weights, which adds no positions."""
    decodes = isinstance(layer, DetrDecoderLayer)
    kind = nn.TransformerDecoderLayer if decodes else nn.TransformerEncoderLayer
    other = kind(16, 4, dim_feedforward=24, dropout=0.0, batch_first=True).double()
    pairs = [("attention", "self_attn"), ("cross_attention", "multihead_attn")][: 1 + decodes]
    state = {}
    for ours, theirs in pairs:
        part = getattr(layer, ours)
        state |= {f"{theirs}.in_proj_{name}": tensor for name, tensor in part.query_key_value.state_dict().items()}
        state |= {f"{theirs}.out_proj.{name}": tensor for name, tensor in part.output.state_dict().items()}
    norms = [layer.attention_norm, *([layer.cross_norm] if decodes else []), layer.mlp.norm]
    modules = {f"norm{number + 1}": norm for number, norm in enumerate(norms)}
    modules |= {"linear1": layer.mlp.widen, "linear2": layer.mlp.narrow}
    state |= {f"{name}.{kind}": tensor for name, module in modules.items() for kind, tensor in module.state_dict().items()}
    other.load_state_dict(state)
    return other


def drawn(layer: nn.Module) -> nn.Module:
    """The layer with biases and norms that must really be applied."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer.double()


def attention_by_hand(part: nn.Module, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Head by head, image by image."""
    query, key, value = (part.query_key_value(x).chunk(3, 2)[n] for n, x in enumerate((queries, keys, values)))
    heads = []
    for place in range(0, query.shape[-1], 4):
        a, b, c = (tensor[..., place : place + 4] for tensor in (query, key, value))
        heads.append(torch.stack([(one @ two.T / 2).softmax(1) @ three for one, two, three in zip(a, b, c, strict=True)]))
    return part.output(torch.cat(heads, dim=2))


@pytest.mark.parametrize("training", [False, True])
def test_without_positions_they_are_torchs(training):
    torch.manual_seed(0)
    queries, pixels = (torch.randn(2, count, 16, dtype=torch.float64, requires_grad=training) for count in (5, 7))
    nothing = torch.zeros(1, 16, dtype=torch.float64)
    encoder, decoder = drawn(DetrEncoderLayer(16, 4, 24, 0.0)), drawn(DetrDecoderLayer(16, 4, 24, 0.0))
    torch.testing.assert_close(encoder(pixels, nothing), torchs(encoder)(pixels), rtol=1e-9, atol=1e-9)
    ours = decoder(queries, nothing, pixels, pixels)
    torch.testing.assert_close(ours, torchs(decoder)(queries, pixels), rtol=1e-9, atol=1e-9)


def test_positions_are_looked_for_and_not_taken_in():
    torch.manual_seed(1)
    queries, pixels = (torch.randn(2, count, 16, dtype=torch.float64) for count in (5, 4))
    own, where = (torch.randn(count, 16, dtype=torch.float64) for count in (5, 4))
    layer = drawn(DetrDecoderLayer(16, 4, 24, 0.0)).eval()
    with torch.no_grad():
        x = layer.attention_norm(queries + attention_by_hand(layer.attention, queries + own, queries + own, queries))
        x = layer.cross_norm(x + attention_by_hand(layer.cross_attention, x + own, pixels + where, pixels))
        wanted = layer.mlp.norm(x + layer.mlp.narrow(layer.mlp.widen(x).clamp(min=0)))
        torch.testing.assert_close(layer(queries, own, pixels, pixels + where), wanted, rtol=1e-9, atol=1e-9)
    layer = drawn(DetrEncoderLayer(16, 4, 24, 0.0)).eval()
    with torch.no_grad():
        x = layer.attention_norm(pixels + attention_by_hand(layer.attention, pixels + where, pixels + where, pixels))
        wanted = layer.mlp.norm(x + layer.mlp.narrow(layer.mlp.widen(x).clamp(min=0)))
        torch.testing.assert_close(layer(pixels, where), wanted, rtol=1e-9, atol=1e-9)


def test_queries_may_come_in_any_order():
    torch.manual_seed(2)
    layer = drawn(DetrDecoderLayer(16, 4, 24, 0.0)).eval()
    queries, own, pixels = (torch.randn(*shape, dtype=torch.float64) for shape in ((1, 6, 16), (6, 16), (1, 9, 16)))
    order = torch.randperm(6)
    with torch.no_grad():
        moved = layer(queries[:, order], own[order], pixels, pixels)
        torch.testing.assert_close(moved, layer(queries, own, pixels, pixels)[:, order], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [DetrEncoderLayer, DetrDecoderLayer])
def test_dropout_leaves_out_what_parts_add_in_training_alone(kind):
    torch.manual_seed(3)
    layer = kind(16, 4, 24, 1.0)
    x = torch.randn(1, 6, 16)
    positions = torch.zeros(6, 16)
    inputs = (x, positions) if kind is DetrEncoderLayer else (x, positions, x, x)
    bare = x
    for _ in range(2 if kind is DetrEncoderLayer else 3):
        bare = nn.functional.layer_norm(bare, (16,))
    torch.testing.assert_close(layer.train()(*inputs), bare)
    assert not torch.allclose(layer.eval()(*inputs), bare, atol=0.01)
