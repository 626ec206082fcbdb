"""NCSN++ as trained for CT and MR by Song et al. 2022, in the layout of its flax checkpoints.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021, Appendix H
(residual blocks of BigGAN, anti-aliased resampling, input and output skips, Fourier features of log sigma), in the
configuration of "Solving Inverse Problems in Medical Imaging with Score-Based Generative Models", ICLR 2022. Layers
are named and numbered as flax does, in the order of their call, so that a checkpoint's tree maps name by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

_HALF = math.sqrt(0.5)
"""Weight of each of two branches that are summed, to keep the variance."""


class NCSNpp(nn.Module):
    """sigma times the score: [batch, channels, h, w], values around [0, 1], and log sigma -> the same shape.

    image_size only says where the attention lies (at the levels with a size in attn_resolutions, and always at the
    coarsest); the network runs on any height and width divisible by 2^(levels - 1).
    """

    def __init__(
        self,
        image_size: int,
        channels: int = 1,
        *,
        nf: int = 32,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 2, 2, 2),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (20,),
    ) -> None:
        super().__init__()
        self.sizes = [image_size >> level for level in range(len(ch_mult))]
        self.num_res_blocks, self.attn_resolutions = num_res_blocks, tuple(attn_resolutions)
        self.layers = nn.ModuleDict()
        self._count: dict[str, int] = {}
        width = 4 * nf
        self._add("GaussianFourierProjection", GaussianFourierProjection(nf))
        self._add("Dense", nn.Linear(2 * nf, width))
        self._add("Dense", nn.Linear(width, width))
        self._add("Conv", nn.Conv2d(channels, nf, 3, padding=1))
        skips = [nf]
        wide = nf
        for level, factor in enumerate(ch_mult):
            for _ in range(num_res_blocks):
                self._add("ResnetBlockBigGANpp", ResnetBlock(wide, nf * factor, width))
                wide = nf * factor
                self._attention(level, wide)
                skips.append(wide)
            if level < len(ch_mult) - 1:
                self._add("ResnetBlockBigGANpp", ResnetBlock(wide, wide, width, change=down))
                self._add("Combine", Combine(channels, wide))
                skips.append(wide)
        self._add("ResnetBlockBigGANpp", ResnetBlock(wide, wide, width))
        self._add("AttnBlockpp", AttnBlock(wide))
        self._add("ResnetBlockBigGANpp", ResnetBlock(wide, wide, width))
        for level in reversed(range(len(ch_mult))):
            for _ in range(num_res_blocks + 1):
                self._add("ResnetBlockBigGANpp", ResnetBlock(wide + skips.pop(), nf * ch_mult[level], width))
                wide = nf * ch_mult[level]
            self._attention(level, wide)
            self._add("GroupNorm", _group_norm(wide))
            self._add("Conv", nn.Conv2d(wide, channels, 3, padding=1))
            if level:
                self._add("ResnetBlockBigGANpp", ResnetBlock(wide, wide, width, change=up))

    def _add(self, kind: str, layer: nn.Module) -> None:
        number = self._count.get(kind, 0)
        self._count[kind] = number + 1
        self.layers[f"{kind}_{number}"] = layer

    def _attention(self, level: int, channels: int) -> None:
        if self.sizes[level] in self.attn_resolutions:
            self._add("AttnBlockpp", AttnBlock(channels))

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x [batch, channels, h, w]; timesteps [batch]: the natural logarithm of sigma."""
        called: dict[str, int] = {}

        def layer(kind: str, *inputs: torch.Tensor) -> torch.Tensor:
            """The next layer of a kind, in the order they were made."""
            number = called.get(kind, 0)
            called[kind] = number + 1
            result: torch.Tensor = self.layers[f"{kind}_{number}"](*inputs)
            return result

        levels = range(len(self.sizes))
        noise = layer("Dense", layer("GaussianFourierProjection", timesteps))
        noise = functional.silu(layer("Dense", functional.silu(noise)))
        image = x = 2.0 * x - 1.0
        h = layer("Conv", x)
        skips = [h]
        for level in levels:
            for _ in range(self.num_res_blocks):
                h = layer("ResnetBlockBigGANpp", h, noise)
                if self.sizes[level] in self.attn_resolutions:
                    h = layer("AttnBlockpp", h)
                skips.append(h)
            if level < levels[-1]:
                image = down(image)
                h = layer("Combine", image, layer("ResnetBlockBigGANpp", h, noise))
                skips.append(h)
        h = layer("ResnetBlockBigGANpp", h, noise)
        h = layer("AttnBlockpp", h)
        h = layer("ResnetBlockBigGANpp", h, noise)
        out: torch.Tensor | None = None
        for level in reversed(levels):
            for _ in range(self.num_res_blocks + 1):
                h = layer("ResnetBlockBigGANpp", torch.cat([h, skips.pop()], dim=1), noise)
            if self.sizes[level] in self.attn_resolutions:
                h = layer("AttnBlockpp", h)
            here = layer("Conv", functional.silu(layer("GroupNorm", h)))
            out = here if out is None else up(out) + here
            if level:
                h = layer("ResnetBlockBigGANpp", h, noise)
        assert out is not None  # there is at least one level
        return out


class ResnetBlock(nn.Module):
    """Residual block of BigGAN: the resolution changes after the first nonlinearity, on both branches."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        embedding: int,
        change: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.change = change
        self.GroupNorm_0 = _group_norm(channels)
        self.Conv_0 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.Dense_0 = nn.Linear(embedding, out_channels)
        self.GroupNorm_1 = _group_norm(out_channels)
        self.Conv_1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.Conv_2 = nn.Conv2d(channels, out_channels, 1) if change or channels != out_channels else None

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x [batch, channels, h, w]; noise [batch, embedding], after its nonlinearity."""
        h = functional.silu(self.GroupNorm_0(x))
        if self.change is not None:
            h, x = self.change(h), self.change(x)
        h = self.Conv_0(h) + self.Dense_0(noise)[:, :, None, None]
        h = self.Conv_1(functional.silu(self.GroupNorm_1(h)))
        return _HALF * (h + (x if self.Conv_2 is None else self.Conv_2(x)))


class AttnBlock(nn.Module):
    """Self-attention over all pixels, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = _group_norm(channels)
        self.NIN_0, self.NIN_1 = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.NIN_2, self.NIN_3 = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, h, w] -> the same."""
        pixels = self.GroupNorm_0(x).flatten(2).transpose(1, 2)
        gathered = functional.scaled_dot_product_attention(
            self.NIN_0(pixels), self.NIN_1(pixels), self.NIN_2(pixels)
        )
        return _HALF * (x + self.NIN_3(gathered).transpose(1, 2).reshape(x.shape))


class Combine(nn.Module):
    """The input image at this resolution, brought to the network's channels and added."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(channels, out_channels, 1)

    def forward(self, image: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """image [batch, channels, h, w] and h [batch, out_channels, h, w]."""
        result: torch.Tensor = self.Conv_0(image) + h
        return result


class GaussianFourierProjection(nn.Module):
    """Sines, then cosines, of random frequencies that belong to the weights: [batch] -> [batch, 2 nf]."""

    def __init__(self, nf: int) -> None:
        super().__init__()
        self.register_buffer("W", torch.linspace(-32.0, 32.0, nf))

    def forward(self, log_sigma: torch.Tensor) -> torch.Tensor:
        """Of 2 pi W log sigma."""
        angles = 2 * math.pi * log_sigma[:, None] * self.get_buffer("W")[None]
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def up(x: torch.Tensor) -> torch.Tensor:
    """Twice the resolution, filtered with (1, 3, 3, 1) in both directions; zeros beyond the edge."""
    return functional.conv_transpose2d(x, 4 * _fir(x), stride=2, padding=1, groups=x.shape[1])


def down(x: torch.Tensor) -> torch.Tensor:
    """Half the resolution, the same filter."""
    return functional.conv2d(x, _fir(x), stride=2, padding=1, groups=x.shape[1])


def _fir(x: torch.Tensor) -> torch.Tensor:
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8
    return torch.outer(line, line).expand(x.shape[1], 1, 4, 4)


def _group_norm(channels: int) -> nn.GroupNorm:
    """At least four channels a group, at most 32 groups; flax's epsilon."""
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)
