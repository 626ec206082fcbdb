"""Projects many slices through one plane scan: the matrix of each few views is made once for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from klip_engine.operators import ScanGeometry
from klip_engine.operators.geometry import Rays
from klip_engine.operators.joseph import joseph_entries
from klip_engine.operators.sparse_rows import ENTRIES_PER_BLOCK, Entries, compress, csr_tensor
from klip_engine.simulation.beam import Beam
from klip_engine.simulation.exact_rays import exact_entries
from klip_engine.simulation.sub_rays import SubRay, rays_of

DEFAULT_KEPT_BYTES = 1_500_000_000
_SLICES_AT_ONCE = 32

RAY_ENTRIES: dict[str, Callable[[Rays, tuple[int, int], float], Entries]] = {
    "exact": exact_entries,
    "joseph": joseph_entries,
}

Block = tuple[int, int, list[torch.Tensor]]
"""Views first .. last - 1, and a sparse matrix [views * bins, pixels] for each ray of the bundle."""


class PlaneProjector:
    """What a beam leaves of the slices of a body in one plane scan.

    geometry: where the rays truly run, with the pixels of the slices; bundle: the rays of each bin, averaged in
    intensity as a detector does; rays: a name in `RAY_ENTRIES`. Matrices up to `kept_bytes` in all are kept from
    one call to the next, larger ones made anew.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        bundle: Sequence[SubRay] = (SubRay(),),
        *,
        rays: str = "exact",
        kept_bytes: int = DEFAULT_KEPT_BYTES,
    ) -> None:
        self.geometry = geometry
        self._bundle = tuple(bundle)
        self._entries = RAY_ENTRIES[rays]
        self._kept_bytes = kept_bytes
        self._kept: list[Block] | None = None

    def transmission(
        self, materials: torch.Tensor, beam: Beam, tell: Callable[[int, int], None] | None = None
    ) -> torch.Tensor:
        """Signal behind the body over that in air: attenuation per mm [materials, slices, rows, columns] to float32
        [slices, views, bins]. tell: is called with (views done, views in all), and may raise to stop."""
        views, bins = len(self.geometry.view_angles_rad), self.geometry.detector_count
        few = [part.flatten(start_dim=2) for part in materials.to(torch.float32).split(_SLICES_AT_ONCE, dim=1)]
        columns = [part.flatten(end_dim=1).T.contiguous() for part in few]
        result = torch.zeros(materials.shape[1], views, bins)
        for first, last, matrices in self._blocks():
            parts = result[:, first:last].split(_SLICES_AT_ONCE)
            for images, column, part in zip(few, columns, parts, strict=True):
                for matrix in matrices:
                    integrals = (matrix @ column).T.unflatten(0, images.shape[:2])
                    part += (beam.transmission(integrals) / len(matrices)).unflatten(1, (last - first, bins))
            if tell is not None:
                tell(last, views)
        return result

    def _blocks(self) -> Iterator[Block]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Block] | None = []
        held = 0
        for block in self._new_blocks():
            if kept is not None:
                kept.append(block)
                # Two numbers of 32 bits for each value.
                held += sum(8 * matrix.values().numel() for matrix in block[2])
                kept = kept if held <= self._kept_bytes else None
            yield block
        self._kept = kept

    def _new_blocks(self) -> Iterator[Block]:
        geometry = self.geometry
        views, shape = len(geometry.view_angles_rad), geometry.image_shape
        per_view = geometry.detector_count * 2 * max(shape)
        step = max(1, ENTRIES_PER_BLOCK // per_view)
        for first in range(0, views, step):
            last = min(first + step, views)
            yield first, last, [self._matrix(first, last, sub) for sub in self._bundle]

    def _matrix(self, first: int, last: int, sub: SubRay) -> torch.Tensor:
        geometry = self.geometry
        rays = rays_of(geometry, first, last, sub)
        centred = Rays(rays.point - rays.point.new_tensor(geometry.image_centre_mm), rays.direction)
        entries = self._entries(centred, geometry.image_shape, geometry.pixel_spacing_mm)
        rows = compress(entries, torch.float32)
        return csr_tensor(rows, (len(rows.lengths), math.prod(geometry.image_shape)))
