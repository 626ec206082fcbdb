"""A prior of whole images put together from patches that know where they are.

Hu, Song, Xu, Shen and Fessler, "Learning Image Priors through Patch-based Diffusion Models for Solving Inverse
Problems" (PaDIS), NeurIPS 2024, Section 3: the padded image is cut into the non-overlapping patches of a grid, each
patch is denoised with the coordinates of its pixels as two further channels, and what lies outside of the image is
the background. The network is trained on random patches as in Wang et al., "Patch Diffusion", NeurIPS 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from klip_engine.priors.base import MOST_PIXELS_A_SIDE, PriorMean
from klip_engine.priors.edm import EDMDenoiser


class PatchEDMDenoiser(EDMDenoiser):
    """EDM preconditioning on square patches of `patch` pixels; a `PatchTiled` prior.

    An image of n pixels is covered by n // patch + 1 patches along each axis, so that a grid may begin up to
    `padding` = patch (n // patch + 1) - n pixels before it: 24 for 256 pixels and patches of 56, as published. The
    padding holds `background`, noisy like the image itself. Position channels are x, then y, of each pixel, in
    [-1, 1] over the image with its padding on both sides.
    """

    family = "patch-edm"
    arguments = (*EDMDenoiser.arguments, "patch", "background")

    def __init__(
        self,
        network: nn.Module,
        image_shape: tuple[int, int],
        *,
        patch: int = 56,
        background: float = -1.0,
        space_to_depth: int = 1,
        **preconditioning: Any,
    ) -> None:
        if type(patch) is not int or not 1 <= patch <= MOST_PIXELS_A_SIDE:
            raise ValueError(f"its patches of {str(patch)[:80]} pixels are not 1 to {MOST_PIXELS_A_SIDE} wide")
        super().__init__(network, image_shape, space_to_depth=space_to_depth, **preconditioning)
        if patch % space_to_depth:
            raise ValueError(
                f"its patches of {patch} pixels are no multiple of its space_to_depth {space_to_depth}"
            )
        self.patch = patch
        self.background = background
        self.grid_shape = (image_shape[0] // patch + 1, image_shape[1] // patch + 1)
        self.padding = (
            patch * self.grid_shape[0] - image_shape[0],
            patch * self.grid_shape[1] - image_shape[1],
        )
        y = torch.linspace(-1.0, 1.0, image_shape[0] + 2 * self.padding[0])
        x = torch.linspace(-1.0, 1.0, image_shape[1] + 2 * self.padding[1])
        position = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1])[None]
        self.register_buffer("position", position, persistent=False)

    def assembled(self, x: torch.Tensor, sigma: torch.Tensor, offset: tuple[int, int]) -> PriorMean:
        """E[x0 | x_t = x] of whole images [batch, channels, h, w] from the grid at an offset, sigma [batch]; the
        patches of all images go through the network together. The first patch begins `offset` modulo `padding`
        pixels into the padded image."""
        top, left = offset[0] % self.padding[0], offset[1] % self.padding[1]
        height, width = (self.patch * count for count in self.grid_shape)
        rows = slice(self.padding[0] - top, self.padding[0] - top + self.image_shape[0])
        columns = slice(self.padding[1] - left, self.padding[1] - left + self.image_shape[1])
        around = (columns.start, width - columns.stop, rows.start, height - rows.stop)
        generator = torch.Generator().manual_seed(
            top * self.patch + left
        )  # new noise around the image at each offset
        noise = torch.randn(1, self.channels, height, width, generator=generator).to(x)
        border = self.background + sigma.view(-1, 1, 1, 1) * noise
        border[..., rows, columns] = 0
        position = self.get_buffer("position")[..., top : top + height, left : left + width]

        patches = self._cut(functional.pad(x, around) + border)
        where = self._cut(position).repeat(len(x), 1, 1, 1)
        count = self.grid_shape[0] * self.grid_shape[1]
        result = super().forward(patches, sigma.repeat_interleave(count), where)
        variance = result.log_variance
        return PriorMean(
            self._joined(result.mean)[..., rows, columns],
            None if variance is None else self._joined(variance)[..., rows, columns],
        )

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, position: torch.Tensor | None = None) -> PriorMean:
        """Whole images [batch, channels, h, w] from the grid at offset (0, 0), or single patches of any size
        [batch, channels, p, p] where their position [batch, 2, p, p] is given; sigma [batch]."""
        return self.assembled(x, sigma, (0, 0)) if position is None else super().forward(x, sigma, position)

    def at_offset(self, offset: tuple[int, int]) -> PatchGrid:
        """The same prior with its grid moved by (rows, columns)."""
        return PatchGrid(self, offset)

    def random_patches(
        self, images: torch.Tensor, size: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Training patches of `size` pixels, evenly distributed over the padded images [batch, channels, h, w]: as
        many of each image as have its area; [n, channels, size, size] and their position [n, 2, size, size]."""
        rows, columns = self.padding
        padded = functional.pad(images, (columns, columns, rows, rows), value=self.background)
        position = self.get_buffer("position")
        each = max(1, round(self.image_shape[0] * self.image_shape[1] / size**2))
        patches, where = [], []
        for image in padded.repeat_interleave(each, dim=0):
            top = int(torch.randint(image.shape[-2] - size + 1, (), generator=generator))
            left = int(torch.randint(image.shape[-1] - size + 1, (), generator=generator))
            patches.append(image[:, top : top + size, left : left + size])
            where.append(position[0, :, top : top + size, left : left + size])
        return torch.stack(patches), torch.stack(where)

    def _cut(self, images: torch.Tensor) -> torch.Tensor:
        """[batch, c, rows p, columns p] -> [batch rows columns, c, p, p]."""
        rows, columns = self.grid_shape
        tiles = images.reshape(len(images), images.shape[1], rows, self.patch, columns, self.patch)
        return tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, images.shape[1], self.patch, self.patch)

    def _joined(self, patches: torch.Tensor) -> torch.Tensor:
        """The inverse of `_cut`."""
        rows, columns = self.grid_shape
        tiles = patches.reshape(-1, rows, columns, patches.shape[1], self.patch, self.patch)
        return tiles.permute(0, 3, 1, 4, 2, 5).reshape(len(tiles), patches.shape[1], rows * self.patch, -1)


class PatchGrid:
    """A patch prior with its grid at one offset: a `Denoiser`."""

    def __init__(self, prior: PatchEDMDenoiser, offset: tuple[int, int]) -> None:
        self._prior, self._offset = prior, offset
        self.channels, self.image_shape = prior.channels, prior.image_shape
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.data_variance = prior.data_variance

    def denoise(self, x: torch.Tensor, sigma: float) -> PriorMean:
        """E[x0 | x_t = x] for a batch [batch, channels, h, w] at one noise level."""
        levels = torch.full((len(x),), float(sigma), dtype=x.dtype, device=x.device)
        return self._prior.assembled(x, levels, self._offset)
