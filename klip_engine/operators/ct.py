"""The CT projector: line integrals of an image along the rays of a scan, with exact adjoint and gradients."""

from __future__ import annotations

from typing import Any, Self

import torch

from klip_engine.errors import UsageError
from klip_engine.operators.fbp import check_filter_name, filtered_back_projection
from klip_engine.operators.geometry import ScanGeometry
from klip_engine.operators.joseph import SystemMatrix
from klip_engine.operators.matrix_cache import MatrixCache
from klip_engine.operators.system_matrix import DEFAULT_MATRIX_LIMIT_BYTES, system_matrix

DEFAULT_VIEWS = 60

matrix_cache = MatrixCache(limit_bytes=2_000_000_000)
"""The matrices of all operators in this process."""


class CTOperator:
    """Line integrals A x in (unit of the image) * mm: images [batch, 1, rows, columns] <-> [batch, views,
    bins].

    float64 arguments are computed in float64, all others in float32, on the argument's device. The system
    matrix is built at the first product and shared by all operators of the same geometry, device and
    precision. Where matrix and transpose would pass `matrix_limit_bytes`, rows are rebuilt in every product
    instead.

    Raises `UsageError` for an unknown filter or a tensor of the wrong shape.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        *,
        fbp_filter: str = "ram-lak",
        matrix_limit_bytes: int = DEFAULT_MATRIX_LIMIT_BYTES,
    ) -> None:
        check_filter_name(fbp_filter)
        self.geometry = geometry
        self.fbp_filter = fbp_filter
        self.matrix_limit_bytes = matrix_limit_bytes
        self.image_shape = geometry.image_shape
        self.measurement_shape: tuple[int, ...] = (len(geometry.view_angles_rad), geometry.detector_count)

    @classmethod
    def for_grid(
        cls,
        geometry_type: type[ScanGeometry],
        image_shape: tuple[int, int],
        spacing_mm: float,
        *,
        views: int = DEFAULT_VIEWS,
        fbp_filter: str = "ram-lak",
        matrix_limit_bytes: int = DEFAULT_MATRIX_LIMIT_BYTES,
        **scan: Any,
    ) -> Self:
        """An evenly spaced scan of an image grid; `scan` is what `ScanGeometry.evenly_spaced` takes."""
        geometry = geometry_type.evenly_spaced(views, image_shape=image_shape, pixel_spacing_mm=spacing_mm, **scan)
        return cls(geometry, fbp_filter=fbp_filter, matrix_limit_bytes=matrix_limit_bytes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """A x: [batch, 1, rows, columns] -> [batch, views, bins]."""
        flat = self._checked(image, (1, *self.image_shape), "images").flatten(start_dim=1)
        return _LinearProduct.apply(flat, self._matrix(flat), False).unflatten(1, self.measurement_shape)

    def adjoint(self, measurement: torch.Tensor) -> torch.Tensor:
        """A^T y: [batch, views, bins] -> [batch, 1, rows, columns]."""
        flat = self._checked(measurement, self.measurement_shape, "measurements").flatten(start_dim=1)
        return _LinearProduct.apply(flat, self._matrix(flat), True).unflatten(1, (1, *self.image_shape))

    def pseudo_inverse(self, measurement: torch.Tensor) -> torch.Tensor:
        """Filtered back-projection, in the image's unit; shapes as for `adjoint`."""
        sinogram = self._checked(measurement, self.measurement_shape, "measurements")
        return filtered_back_projection(sinogram, self.geometry, self.fbp_filter)

    def matrix_bytes(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> int:
        """Memory of the system matrix and its transpose, built now if need be; 0 where rows are rebuilt."""
        return self._matrix(torch.empty(0, device=device, dtype=dtype)).nbytes

    def _matrix(self, like: torch.Tensor) -> SystemMatrix:
        key = (self.geometry, like.device, like.dtype, self.matrix_limit_bytes)
        return matrix_cache.get(
            key, lambda: system_matrix(self.geometry, like.device, like.dtype, self.matrix_limit_bytes)
        )

    @staticmethod
    def _checked(tensor: torch.Tensor, shape: tuple[int, ...], what: str) -> torch.Tensor:
        if tuple(tensor.shape[1:]) != shape or tensor.ndim != len(shape) + 1:
            raise UsageError(
                f"This operator takes {what} of shape [batch, {', '.join(map(str, shape))}], "
                f"not {list(tensor.shape)}."
            )
        return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)


class _LinearProduct(torch.autograd.Function):
    """Product with a system matrix or its transpose; the gradient is the product with the other one."""

    @staticmethod
    def forward(ctx: Any, flat: torch.Tensor, matrix: SystemMatrix, transposed: bool) -> torch.Tensor:
        ctx.matrix, ctx.transposed = matrix, transposed
        # Autocast would turn the matrix to half precision.
        with torch.autocast(flat.device.type, enabled=False):
            return matrix.back_project(flat) if transposed else matrix.project(flat)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _LinearProduct.apply(gradients[0], ctx.matrix, not ctx.transposed), None, None
