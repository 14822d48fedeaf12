"""Attention both ways between the tokens of prompts and the patches of an image: Segment Anything (arXiv 2304.02643).

Prompts of one image share its patches until these have heeded their tokens, and are not repeated before. Where tokens are few,
products of tokens, weights and patches are made in the other order, tokens with weights first: with 7 tokens of 8 heads and 256
channels that takes 0.12 instead of 0.27 GFLOP for each of a layer's products with 4096 patches.

Axes: B images, P prompts of each, T tokens of a prompt, N patches, S maps of patches of an image (1 while all prompts share it,
else P), R tokens that heed one map (P * T or T), E channels, A heads, D channels of a head.
"""

from math import sqrt

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.attention import attend

NARROWER = 2  # times, attention between tokens and patches is inside


class TwoWayBlock(nn.Module):
    """Tokens heed each other, then patches, and patches heed tokens; each behind a shortcut and before a norm."""

    def __init__(self, width: int, mlp_width: int, num_heads: int, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first  # whose tokens heed each other without their first values, and without a shortcut
        self.attention = _SelfAttention(width, num_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.to_image = CrossAttention(width, num_heads)
        self.to_image_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, mlp_width)
        self.narrow = nn.Linear(mlp_width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.to_tokens = CrossAttention(width, num_heads)
        self.to_tokens_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, begun: Tensor, image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, P, T, E), which are known by what they `begun` as, and patches (B, S, N, E), known by their places."""
        tokens = self.attention(tokens, tokens) if self.is_first else tokens + self.attention(tokens + begun, tokens)
        tokens = self.attention_norm(tokens)
        placed = image + places
        tokens = self.to_image_norm(tokens + self.to_image.of_tokens(tokens + begun, placed, image))
        tokens = self.mlp_norm(tokens + self.narrow(F.relu(self.widen(tokens))))
        image = self.to_tokens_norm(image + self.to_tokens.of_image(placed, tokens + begun, tokens))  # (B, P, N, E)
        return tokens, image


class _SelfAttention(nn.Module):
    """Tokens heed each other: what they are known by (B, P, T, E) and what they say (B, P, T, E) to (B, P, T, E)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, known: Tensor, said: Tensor) -> Tensor:
        parts = (_heads(layer(x), self.num_heads) for layer, x in ((self.query, known), (self.key, known), (self.value, said)))
        return self.output(attend(*parts).transpose(2, 3).flatten(3))


class CrossAttention(nn.Module):
    """Attention between the few tokens of each prompt and the many patches of the image, one way or the other.

    Patches go through a linear layer before they meet tokens only where that is cheaper than to send tokens through it the
    other way: where there are more tokens than channels of a head, or prompts that share the patches.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(width, width // NARROWER) for _ in range(3))
        self.output = nn.Linear(width // NARROWER, width)

    def of_tokens(self, tokens: Tensor, placed: Tensor, image: Tensor) -> Tensor:
        """What tokens (B, P, T, E) take from patches (B, S, N, E), known as `placed`: (B, P, T, E)."""
        P = tokens.shape[1]
        query = _gathered(_heads(self.query(tokens), self.num_heads), placed.shape[1])  # (B, S, A, R, D)
        if query.shape[3] > query.shape[4]:
            mixed = attend(query, _heads(self.key(placed), self.num_heads), _heads(self.value(image), self.num_heads))
        else:
            scores = _scores(query, self.key, placed)  # (B, S, A, R, N)
            taken = (scores.softmax(dim=-1).flatten(2, 3) @ image).unflatten(2, scores.shape[2:4])  # (B, S, A, R, E)
            weight = self.value.weight.unflatten(0, (self.num_heads, -1))  # (A, D, E)
            mixed = taken @ weight.transpose(-2, -1) + self.value.bias.view(self.num_heads, 1, -1)
        return self.output(_spread(mixed, P).transpose(2, 3).flatten(3))

    def of_image(self, placed: Tensor, known: Tensor, said: Tensor) -> Tensor:
        """What patches (B, S, N, E) take from tokens that are `known` by something and say something: (B, P, N, E)."""
        P = known.shape[1]
        key = _gathered(_heads(self.key(known), self.num_heads), placed.shape[1])  # (B, S, A, R, D)
        if key.shape[3] > key.shape[4]:
            scores = (key / sqrt(key.shape[-1])) @ _heads(self.query(placed), self.num_heads).transpose(-2, -1)
        else:
            scores = _scores(key, self.query, placed)
        probs = _spread(scores, P).softmax(dim=3)  # (B, P, A, T, N), over tokens
        weight = self.output.weight.unflatten(1, (self.num_heads, -1)).permute(1, 2, 0)  # (A, D, E)
        bias = self.output.bias / self.num_heads  # a part for each head, whose probs add up to 1
        given = _heads(self.value(said), self.num_heads) @ weight + bias  # (B, P, A, T, E)
        return probs.flatten(2, 3).transpose(-2, -1) @ given.flatten(2, 3)


def _scores(tokens: Tensor, layer: nn.Linear, image: Tensor) -> Tensor:
    """Scaled products of heads of tokens (B, S, A, R, D) and of what a layer makes of patches (B, S, N, E): (B, S, A, R, N)."""
    tokens = tokens / sqrt(tokens.shape[-1])
    A = tokens.shape[2]
    weight, bias = layer.weight.unflatten(0, (A, -1)), layer.bias.view(A, -1, 1)
    scores = ((tokens @ weight).flatten(2, 3) @ image.transpose(-2, -1)).unflatten(2, tokens.shape[2:4])
    return scores + tokens @ bias


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, P, T, A * D) as (B, P, A, T, D)."""
    return x.unflatten(3, (num_heads, -1)).transpose(2, 3)


def _gathered(heads: Tensor, maps: int) -> Tensor:
    """Heads of prompts (B, P, A, T, D) for so many maps of patches: all in one row (B, 1, A, P * T, D) if they share one."""
    return heads if maps == heads.shape[1] else heads.transpose(1, 2).flatten(2, 3)[:, None]


def _spread(heads: Tensor, prompts: int) -> Tensor:
    """What was gathered (B, S, A, R, *) for each prompt again (B, P, A, T, *)."""
    return heads if heads.shape[1] == prompts else heads[:, 0].unflatten(2, (prompts, -1)).transpose(1, 2)
