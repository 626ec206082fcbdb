"""The U-Net of score-based models, DDPM++ and NCSN++, in the layout that EDM snapshots are published in.

Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021, Appendix H;
Karras et al., NeurIPS 2022 (EDM), Appendix F.2 and Table 7. Parameters are named and shaped as in EDM's snapshots
(`enc.64x64_block0.conv0.weight`), so that published weights load strictly; PaDIS uses the same network on patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_HALF = math.sqrt(0.5)
"""Weight of each of two branches that are summed, to keep the variance."""


class SongUNet(nn.Module):
    """F(x; c_noise): [batch, in_channels, h, w] -> [batch, out_channels, h, w].

    h and w are divisible by 2^(levels - 1). img_resolution only names the levels and places the attention: the
    network runs on other sizes, as PaDIS does. embedding_type "positional" (DDPM++) or "fourier" (NCSN++);
    encoder_type "standard" (DDPM++), "residual" (NCSN++) or "skip"; decoder_type "standard" or "skip". Class labels
    are not supported; augmentation labels have their weights but are taken as zero, as they are in sampling.
    c_noise is time_scale times the time it is called with. Raises ValueError for another type.
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        *,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        for value, known in (
            (embedding_type, ("positional", "fourier")),
            (encoder_type, ("standard", "skip", "residual")),
            (decoder_type, ("standard", "skip")),
        ):
            if value not in known:
                raise ValueError(f"a SongUNet has no part of type '{value}' (known: {', '.join(known)})")
        self.time_scale = time_scale
        noise_channels = model_channels * channel_mult_noise
        width = model_channels * channel_mult_emb
        common: dict[str, Any] = {"embedding": width, "dropout": dropout, "taps": resample_filter}
        sinusoids = PositionalEmbedding if embedding_type == "positional" else FourierEmbedding
        self.map_noise = sinusoids(noise_channels)
        self.map_augment = nn.Linear(augment_dim, noise_channels, bias=False) if augment_dim else None
        self.map_layer0 = nn.Linear(noise_channels, width)
        self.map_layer1 = nn.Linear(width, width)

        sizes = [img_resolution >> level for level in range(len(channel_mult))]
        widths = [model_channels * factor for factor in channel_mult]
        skips = [model_channels]
        channels, side_channels = model_channels, in_channels
        self.enc = nn.ModuleDict({f"{sizes[0]}x{sizes[0]}_conv": Resample(in_channels, model_channels, 3)})
        for level, (size, wide) in enumerate(zip(sizes, widths, strict=True)):
            name = f"{size}x{size}"
            if level:
                self.enc[f"{name}_down"] = UNetBlock(channels, channels, down=True, **common)
                skips.append(channels)
                down: dict[str, Any] = {"down": True, "taps": resample_filter}
                if encoder_type == "skip":
                    self.enc[f"{name}_aux_down"] = Resample(side_channels, side_channels, 0, **down)
                    self.enc[f"{name}_aux_skip"] = Resample(side_channels, channels, 1)
                if encoder_type == "residual":
                    self.enc[f"{name}_aux_residual"] = Resample(side_channels, channels, 3, fused=True, **down)
                    side_channels = channels
            for block in range(num_blocks):
                attention = size in attn_resolutions
                self.enc[f"{name}_block{block}"] = UNetBlock(channels, wide, attention=attention, **common)
                channels = wide
                skips.append(channels)

        self.dec = nn.ModuleDict()
        for level in reversed(range(len(sizes))):
            size, wide = sizes[level], widths[level]
            name = f"{size}x{size}"
            if level == len(sizes) - 1:
                self.dec[f"{name}_in0"] = UNetBlock(channels, channels, attention=True, **common)
                self.dec[f"{name}_in1"] = UNetBlock(channels, channels, **common)
            else:
                self.dec[f"{name}_up"] = UNetBlock(channels, channels, up=True, **common)
            for block in range(num_blocks + 1):
                attention = block == num_blocks and size in attn_resolutions
                self.dec[f"{name}_block{block}"] = UNetBlock(
                    channels + skips.pop(), wide, attention=attention, **common
                )
                channels = wide
            if decoder_type == "skip" and level < len(sizes) - 1:
                self.dec[f"{name}_aux_up"] = Resample(out_channels, out_channels, 0, up=True, taps=resample_filter)
            if decoder_type == "skip" or level == 0:
                self.dec[f"{name}_aux_norm"] = _group_norm(channels)
                self.dec[f"{name}_aux_conv"] = Resample(channels, out_channels, 3)

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x [batch, in_channels, h, w]; timesteps [batch]."""
        embedding = self.map_layer0(self.map_noise(self.time_scale * timesteps))
        embedding = functional.silu(self.map_layer1(functional.silu(embedding)))
        side = x
        skips: list[torch.Tensor] = []
        for name, part in self.enc.items():
            if name.endswith("aux_down"):
                side = part(side)
            elif name.endswith("aux_skip"):
                x = skips[-1] = x + part(side)
            elif name.endswith("aux_residual"):
                x = skips[-1] = side = (x + part(side)) * _HALF
            else:
                x = part(x, embedding) if isinstance(part, UNetBlock) else part(x)
                skips.append(x)
        image: torch.Tensor | None = None
        for name, part in self.dec.items():
            if name.endswith("aux_up"):
                image = part(image)
            elif name.endswith("aux_norm"):
                normalised = part(x)
            elif name.endswith("aux_conv"):
                here = part(functional.silu(normalised))
                image = here if image is None else image + here
            else:
                if "_block" in name:
                    x = torch.cat([x, skips.pop()], dim=1)
                x = part(x, embedding)
        assert image is not None  # the last level always ends with aux_conv
        return image


class UNetBlock(nn.Module):
    """Residual block with the noise level added between its convolutions, then self-attention where asked for."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding: int,
        dropout: float,
        taps: Sequence[float],
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        change: dict[str, Any] = {"up": up, "down": down, "taps": taps}
        self.dropout = dropout
        self.norm0 = _group_norm(in_channels)
        self.conv0 = Resample(in_channels, out_channels, 3, **change)
        self.affine = nn.Linear(embedding, out_channels)
        self.norm1 = _group_norm(out_channels)
        self.conv1 = Resample(out_channels, out_channels, 3)
        same = in_channels == out_channels and not (up or down)
        self.skip = None if same else Resample(in_channels, out_channels, 1, **change)
        self.attention = attention
        if attention:
            self.norm2 = _group_norm(out_channels)
            self.qkv = Resample(out_channels, 3 * out_channels, 1)
            self.proj = Resample(out_channels, out_channels, 1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """x [batch, in_channels, h, w]; embedding [batch, width]."""
        h = self.conv0(functional.silu(self.norm0(x))) + self.affine(embedding)[:, :, None, None]
        h = functional.dropout(functional.silu(self.norm1(h)), self.dropout, self.training)
        x = _HALF * (self.conv1(h) + (x if self.skip is None else self.skip(x)))
        return _HALF * (x + self.proj(self._attend(self.norm2(x)))) if self.attention else x

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        """Every pixel gathers from all pixels; one head. Query, key and value of a channel lie side by side."""
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(x).view(batch, channels, 3, height * width).transpose(1, 3).unbind(2)
        gathered = functional.scaled_dot_product_attention(q, k, v)
        return gathered.transpose(1, 2).reshape(batch, channels, height, width)


class Resample(nn.Module):
    """Convolution (`kernel` 0: none) after doubling or halving the resolution with a separable FIR filter.

    fused: when halving, convolve first, as the residual encoder of NCSN++ does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        up: bool = False,
        down: bool = False,
        taps: Sequence[float] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.up, self.down, self.fused = up, down, fused
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, kernel, kernel)) if kernel else None
        self.bias = nn.Parameter(torch.zeros(out_channels)) if kernel else None
        if self.weight is not None:
            nn.init.xavier_uniform_(self.weight)
        line = torch.tensor(list(taps), dtype=torch.float32)
        plane = torch.outer(line, line)[None, None] / line.sum() ** 2
        self.register_buffer("resample_filter", plane if up or down else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, h, w] -> [batch, out_channels, h', w']."""
        if self.weight is None:
            return self._change(x)
        margin = self.weight.shape[-1] // 2
        if self.down and self.fused:
            # One padding for both filters: the FIR filter then sees the convolution beyond the edge.
            fir = self.get_buffer("resample_filter")
            edge = margin + (fir.shape[-1] - 1) // 2
            wide = functional.conv2d(x, self.weight, padding=edge)
            return _each_channel(wide, fir, stride=2) + self.bias[:, None, None]  # type: ignore[index]
        return functional.conv2d(self._change(x), self.weight, self.bias, padding=margin)

    def _change(self, x: torch.Tensor) -> torch.Tensor:
        """Twice or half the resolution, or the same."""
        if not (self.up or self.down):
            return x
        fir = self.get_buffer("resample_filter")
        edge = (fir.shape[-1] - 1) // 2
        if self.down:
            return _each_channel(x, fir, stride=2, padding=edge)
        weight = (4 * fir).expand(x.shape[1], 1, *fir.shape[2:])
        return functional.conv_transpose2d(x, weight, stride=2, padding=edge, groups=x.shape[1])


class PositionalEmbedding(nn.Module):
    """Sinusoids of geometrically spaced frequencies, 1 down to 1/10000 (DDPM++): [batch] -> [batch, channels]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """All sines, then all cosines."""
        half = self.channels // 2
        steps = torch.arange(half, dtype=torch.float32, device=noise.device) / (half - 1)
        angles = noise[:, None] * (1e-4**steps)[None].to(noise.dtype)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class FourierEmbedding(nn.Module):
    """Sinusoids of random frequencies that belong to the weights (NCSN++): [batch] -> [batch, channels]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.linspace(-32.0, 32.0, channels // 2))

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """All sines, then all cosines."""
        angles = noise[:, None] * (2 * math.pi * self.get_buffer("freqs"))[None].to(noise.dtype)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def _group_norm(channels: int) -> nn.GroupNorm:
    """At least four channels a group, at most 32 groups."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


def _each_channel(x: torch.Tensor, fir: torch.Tensor, stride: int, padding: int = 0) -> torch.Tensor:
    """The same filter on every channel."""
    channels = x.shape[1]
    return functional.conv2d(
        x, fir.expand(channels, 1, *fir.shape[2:]), stride=stride, padding=padding, groups=channels
    )
