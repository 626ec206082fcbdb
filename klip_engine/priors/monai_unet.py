"""MONAI's `DiffusionModelUNet` without MONAI: importing that package takes longer than a slice takes to score.

The U-Net of Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, Appendix B, laid out as in MONAI
1.4 and later: parameters are named, shaped and drawn as there, so that weights go either way, a seed gives the same
network, and results keep their bits. For two axes, without conditioning: what asks for more is built by MONAI.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import torch
from torch import nn
from torch.nn import functional

_ARGUMENTS = {
    "spatial_dims", "in_channels", "out_channels", "channels", "num_res_blocks", "attention_levels",
    "norm_num_groups", "num_head_channels",
}  # fmt: skip


def is_covered(arguments: Mapping[str, Any]) -> bool:
    """Whether `DiffusionUNet` is what MONAI would build from these keyword arguments.

    False for wrong ones too: what is wrong with them is then MONAI's to say.
    """
    if set(arguments) != _ARGUMENTS or arguments["spatial_dims"] != 2:
        return False
    channels, groups, head = (arguments[name] for name in ("channels", "norm_num_groups", "num_head_channels"))
    blocks, attention = arguments["num_res_blocks"], arguments["attention_levels"]
    if not (_are_counts(channels, blocks) and isinstance(attention, (list, tuple))):
        return False
    numbers = [arguments["in_channels"], arguments["out_channels"], groups, head]
    return (
        _are_counts(numbers)
        and len(channels) == len(blocks) == len(attention) > 0
        and all(isinstance(level, bool) for level in attention)
        and all(count % groups == 0 for count in channels)
        and all(count % head == 0 for count in [*channels[-1:], *_where(attention, channels)])
    )


class DiffusionUNet(nn.Module):
    """F(x; t): [batch, in_channels, h, w] -> [batch, out_channels, h, w]; h, w divisible by 2^(levels - 1).

    channels, num_res_blocks, attention_levels: one entry a level, finest first; num_head_channels: channels of one
    attention head; norm_num_groups divides all channels. The arguments are MONAI's: see `is_covered`.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        num_res_blocks: Sequence[int],
        attention_levels: Sequence[bool],
        norm_num_groups: int,
        num_head_channels: int,
    ) -> None:
        super().__init__()
        if spatial_dims != 2:
            raise ValueError(f"a DiffusionUNet has 2 axes, not {spatial_dims}")
        width = 4 * channels[0]
        common: dict[str, Any] = {"embedding": width, "groups": norm_num_groups}
        self.channels = channels[0]
        self.conv_in = _convolution(in_channels, channels[0])
        self.time_embed = nn.Sequential(nn.Linear(channels[0], width), nn.SiLU(), nn.Linear(width, width))

        inner = [channels[0], *channels]  # of the level before; blocks are not listed: a file can name a million
        heads = [num_head_channels if level else 0 for level in attention_levels]
        last = len(channels) - 1
        self.down_blocks = nn.ModuleList()
        for level, (wide, blocks) in enumerate(zip(channels, num_res_blocks, strict=True)):
            inputs = chain([inner[level]], repeat(wide, blocks - 1))
            self.down_blocks.append(Level(inputs, wide, heads[level], down=level < last, **common))
        self.middle_block = Middle(channels[-1], num_head_channels, **common)
        self.up_blocks = nn.ModuleList()
        for level in reversed(range(len(channels))):
            wide, blocks = channels[level], num_res_blocks[level]
            below = channels[min(level + 1, last)]
            inputs = chain([below + wide], repeat(2 * wide, blocks - 1), [wide + inner[level]])
            self.up_blocks.append(Level(inputs, wide, heads[level], up=level > 0, **common))
        self.out = nn.Sequential(
            _group_norm(norm_num_groups, channels[0]), nn.SiLU(), _zero(_convolution(channels[0], out_channels))
        )

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x [batch, in_channels, h, w]; timesteps [batch]."""
        embedding = self.time_embed(_sinusoids(timesteps, self.channels).to(x.dtype))
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            x = level(x, embedding, into=skips)
        x = self.middle_block(x, embedding)
        for level in self.up_blocks:
            x = level(x, embedding, out_of=skips)
        out: torch.Tensor = self.out(x)
        return out


class Level(nn.Module):
    """Residual blocks with these numbers of channels in, attention (head 0: none) after each, then half or twice
    the resolution. On the way down every answer is kept; on the way up every block is given one of them besides."""

    def __init__(
        self,
        inputs: Iterable[int],
        wide: int,
        head: int,
        *,
        embedding: int,
        groups: int,
        down: bool = False,
        up: bool = False,
    ) -> None:
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(), nn.ModuleList()
        for channels in inputs:
            self.resnets.append(ResidualBlock(channels, wide, embedding, groups))
            if head:
                self.attentions.append(Attention(wide, head, groups))
        self.downsampler = nn.Sequential(OrderedDict(op=_convolution(wide, wide, stride=2))) if down else None
        self.upsampler = nn.Sequential(OrderedDict(postconv=_convolution(wide, wide))) if up else None

    def forward(
        self,
        x: torch.Tensor,
        embedding: torch.Tensor,
        into: list[torch.Tensor] | None = None,
        out_of: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """x [batch, channels, h, w]; embedding [batch, width]; the answers kept so far, which this call changes."""
        for index, resnet in enumerate(self.resnets):
            if out_of is not None:
                x = torch.cat([x, out_of.pop()], dim=1)
            x = resnet(x, embedding)
            if self.attentions:
                x = self.attentions[index](x)
            if into is not None:
                into.append(x)
        if self.downsampler is not None:
            x = self.downsampler(x)
            if into is not None:
                into.append(x)
        if self.upsampler is not None:
            x = self.upsampler(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class Middle(nn.Module):
    """Between the way down and the way up: attention between two residual blocks."""

    def __init__(self, channels: int, head: int, *, embedding: int, groups: int) -> None:
        super().__init__()
        self.resnet_1 = ResidualBlock(channels, channels, embedding, groups)
        self.attention = Attention(channels, head, groups)
        self.resnet_2 = ResidualBlock(channels, channels, embedding, groups)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """x [batch, channels, h, w]; embedding [batch, width]."""
        out: torch.Tensor = self.resnet_2(self.attention(self.resnet_1(x, embedding)), embedding)
        return out


class ResidualBlock(nn.Module):
    """Two convolutions with the noise level added between them, beside the identity (or a 1 x 1 convolution)."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _group_norm(groups, in_channels)
        self.conv1 = _convolution(in_channels, out_channels)
        self.time_emb_proj = nn.Linear(embedding, out_channels)
        self.norm2 = _group_norm(groups, out_channels)
        self.conv2 = _zero(_convolution(out_channels, out_channels))
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else _convolution(in_channels, out_channels, kernel=1)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """x [batch, in_channels, h, w]; embedding [batch, width]."""
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.time_emb_proj(functional.silu(embedding))[:, :, None, None]
        h = self.conv2(functional.silu(self.norm2(h)))
        out: torch.Tensor = self.skip_connection(x) + h
        return out


class Attention(nn.Module):
    """Every pixel gathers from all pixels, in heads of `head` channels; added to what came in."""

    def __init__(self, channels: int, head: int, groups: int) -> None:
        super().__init__()
        self.head = head
        self.norm = _group_norm(groups, channels)
        names = ("out_proj", "to_q", "to_k", "to_v")
        self.attn = nn.ModuleDict({name: nn.Linear(channels, channels) for name in names})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, h, w] -> the same."""
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # [batch, h w, channels]
        heads = [self.attn[name](pixels).unflatten(2, (-1, self.head)) for name in ("to_q", "to_k", "to_v")]
        q, k, v = (one.transpose(1, 2) for one in heads)  # [batch, heads, h w, head]
        # Not scaled_dot_product_attention: its last bits are others.
        weights = (torch.einsum("bhqc,bhkc->bhqk", q, k) * self.head**-0.5).softmax(dim=-1)
        gathered = torch.einsum("bhqk,bhkc->bhqc", weights, v).transpose(1, 2).flatten(2)
        out: torch.Tensor = self.attn["out_proj"](gathered).transpose(1, 2).reshape(x.shape) + x
        return out.contiguous()


def _sinusoids(timesteps: torch.Tensor, channels: int) -> torch.Tensor:
    """[batch] -> [batch, channels], float32: all cosines, then all sines; frequencies 1 down to nearly 1/10000."""
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * torch.exp(-math.log(10000) * steps / half)
    return functional.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, channels % 2))


def _convolution(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """MONAI names what is in its `Convolution`: conv."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=layer))


def _group_norm(groups: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _zero(layer: nn.Module) -> nn.Module:
    """Start a branch with nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _are_counts(*lists: Any) -> bool:
    """Lists of whole numbers above zero."""
    return all(
        isinstance(one, (list, tuple)) and all(type(number) is int and number > 0 for number in one)
        for one in lists
    )


def _where(flags: Sequence[bool], values: Sequence[int]) -> list[int]:
    return [value for flag, value in zip(flags, values, strict=True) if flag]
