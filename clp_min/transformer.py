"""DeiT: a vision transformer with a distillation token (Touvron et al. 2021), for small images.

q, k, v and all other maps are nn.Linear, so that ``clp_min.fisher`` covers every parameter; the
tokens have a rule of their own.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


class Tokens(nn.Module):
    """Puts the class and the distillation token before the patches and adds positions: (n, t, d)
    -> (n, t + 2, d)."""

    def __init__(self, patches, dim):
        super().__init__()
        self.tokens = nn.Parameter(0.02 * torch.randn(2, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(patches + 2, dim))

    def forward(self, x):
        return torch.cat([self.tokens.expand(len(x), -1, -1), x], 1) + self.positions

    def squared_gradient_norms(self, a, delta):
        """(n,): d output / d positions is the identity, d output / d tokens its first two rows."""
        return delta.square().sum((1, 2)) + delta[:, :2].square().sum((1, 2))


class Attention(nn.Module):
    """Multi-head self-attention, (n, t, d) -> (n, t, d)."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x):
        # (n, heads, t, d / heads)
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class DeiT(nn.Module):
    """Images (n, channels, side, side) -> logits (n, classes): the mean of the class head's and the
    distillation head's.

    Defaults are those of "Revisiting critical learning periods", Appendix B.1: patch 4, dim 512,
    hidden 512, 8 heads, depth 4 (the text gives the number of heads twice; its second value
    is read as the depth).
    """

    def __init__(
        self, shape=(3, 32, 32), classes=10, patch=4, dim=512, heads=8, depth=4, hidden=512
    ):
        super().__init__()
        channels, side, _ = shape
        if side % patch or dim % heads:
            raise ValueError(
                f"patch must divide side, and heads dim, got {side}, {patch}, {dim}, {heads}"
            )
        self.embedding = nn.Conv2d(channels, dim, patch, patch)
        self.tokens = Tokens((side // patch) ** 2, dim)
        self.blocks = nn.Sequential(*(Block(dim, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.class_head, self.distillation_head = nn.Linear(dim, classes), nn.Linear(dim, classes)

    def both(self, x):
        """(class logits, distillation logits), each (n, classes)."""
        x = self.norm(self.blocks(self.tokens(self.embedding(x).flatten(2).transpose(1, 2))))
        return self.class_head(x[:, 0]), self.distillation_head(x[:, 1])

    def forward(self, x):
        own, distilled = self.both(x)
        return (own + distilled) / 2


def hard_distillation(teacher):
    """Loss (model, x, y): half the class head's cross-entropy under y, half the distillation
    head's under the teacher's own prediction."""
    return partial(_distilled, teacher)


def _distilled(teacher, model, x, y):
    own, distilled = model.both(x)
    with torch.no_grad():
        taught = teacher(x).argmax(1)
    return (F.cross_entropy(own, y) + F.cross_entropy(distilled, taught)) / 2
