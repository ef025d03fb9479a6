"""The example model in torch: a diffusion transformer with adaLN-zero blocks and the tensor names of facebook/DiT."""
import json

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, x):
        batch, tokens, size = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, size))


class Mlp(nn.Module):
    def __init__(self, size, inner):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size, inner), nn.Linear(inner, size)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


def norm(x):
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


class Block(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.attn, self.mlp = Attention(size, heads), Mlp(size, 4 * size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 6 * size))

    def forward(self, x, c):
        s1, c1, g1, s2, c2, g2 = self.adaLN_modulation[1](c)[:, None].chunk(6, -1)
        x = x + g1 * self.attn(norm(x) * (1 + c1) + s1)
        return x + g2 * self.mlp(norm(x) * (1 + c2) + s2)


class Patches(nn.Module):
    def __init__(self, patch, size):
        super().__init__()
        self.proj = nn.Conv2d(1, size, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Times(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, t):
        f = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(128) / 128)
        a = t.float()[:, None] * f
        return self.mlp(torch.cat([a.cos(), a.sin()], -1))


class Labels(nn.Module):
    def __init__(self, classes, size):
        super().__init__()
        self.embedding_table = nn.Embedding(classes, size)


class Last(nn.Module):
    def __init__(self, size, patch):
        super().__init__()
        self.linear = nn.Linear(size, patch * patch)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 2 * size))

    def forward(self, x, c):
        shift, scale = self.adaLN_modulation[1](c)[:, None].chunk(2, -1)
        return self.linear(norm(x) * (1 + scale) + shift)


class DiT(nn.Module):
    def __init__(self, folder):
        super().__init__()
        config = json.loads((folder / "config.json").read_text())
        size, patch, side = config["hidden_size"], config["patch_size"], config["image_size"]
        self.patch, self.grid = patch, side // patch
        self.x_embedder, self.t_embedder = Patches(patch, size), Times(size)
        self.y_embedder = Labels(11, size)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid**2, size), requires_grad=False)
        self.blocks = nn.ModuleList(Block(size, config["num_heads"]) for _ in range(config["depth"]))
        self.final_layer = Last(size, patch)

    def forward(self, x, t, y):
        h = self.x_embedder(x) + self.pos_embed
        c = functional.silu(self.t_embedder(t) + self.y_embedder.embedding_table(y))
        for block in self.blocks:
            # The nonlinearity in front of every modulation is done once.
            h = block(h, c)
        o = self.final_layer(h, c)
        g, p = self.grid, self.patch
        return o.reshape(len(x), g, g, p, p).permute(0, 1, 3, 2, 4).reshape(len(x), 1, g * p, g * p)


ALPHA_BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


@torch.no_grad()
def sample(model, labels, noise, steps):
    """Deterministic DDIM with clipped predictions."""
    times = torch.linspace(999, 0, steps).round().long()
    x = noise
    for i, t in enumerate(times):
        e = model(x, t.expand(len(x)), labels)
        a = ALPHA_BAR[t]
        x0 = ((x - (1 - a).sqrt() * e) / a.sqrt()).clamp(-1, 1)
        if i + 1 == steps:
            return x0.float()
        b = ALPHA_BAR[times[i + 1]]
        e = (x - a.sqrt() * x0) / (1 - a).sqrt()
        x = (b.sqrt() * x0 + (1 - b).sqrt() * e).float()
