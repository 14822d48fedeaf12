"""Scaled dot-product attention: Attention Is All You Need (Vaswani et al. 2017, arXiv 1706.03762).

Axes: A heads, N queries, M keys, D channels of a head, * any axes before these.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax of scaled products of queries (*, A, N, D) and keys (*, A, M, D), times values (*, A, M, D): (*, A, N, D).

    A `bias`, of any shape that broadcasts to (*, A, N, M), is added to the scaled products; it takes the type of the queries.

    torch's fused kernel, but its backward pass on CPU is 2 to 6 times slower than the formula for the few keys that windows and
    shrunk maps have.
    """
    if bias is not None:
        bias = bias.to(query.dtype)
    if query.requires_grad and query.device.type == "cpu":
        scores = (query / sqrt(query.shape[-1])) @ key.transpose(-2, -1)
        if bias is not None:
            scores += bias
        return torch.softmax(scores, dim=-1) @ value
    if query.ndim == 4:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    if bias is not None:
        bias = bias.expand(*query.shape[:-1], key.shape[-2]).flatten(0, -4)
    batch = query.shape[:-3]
    query, key, value = (tensor.flatten(0, -4) for tensor in (query, key, value))  # the fused kernel knows one batch axis
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).unflatten(0, batch)
