"""<A x, y> = <x, A^T y>: the property that posterior sampling leans on, for every operator."""

from __future__ import annotations

import math

import pytest
import torch

from klip_engine.operators import OPERATORS, CTOperator, LinearOperator, build_operator


def adjoint_error(operator: LinearOperator, rng: torch.Generator) -> float:
    """Of the inner products, relative to |A x| |y|, in float64; x and y are positive."""
    image = torch.rand(2, 1, *operator.image_shape, generator=rng)
    measurement = torch.rand(2, *operator.measurement_shape, generator=rng)
    projected, back_projected = operator.forward(image), operator.adjoint(measurement)
    assert projected.shape == measurement.shape
    assert back_projected.shape == image.shape
    left = (projected.double() * measurement.double()).sum()
    right = (image.double() * back_projected.double()).sum()
    return float(abs(left - right) / (projected.double().norm() * measurement.double().norm()))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("image_shape", [(128, 160), (97, 64)], ids=str)
def test_every_registered_operator_has_an_exact_adjoint(name, image_shape, rng):
    assert adjoint_error(build_operator(name, image_shape, 3.0), rng) < 1e-6


@pytest.mark.parametrize(
    "scan",
    [
        {"views": 24, "arc_deg": 100, "start_deg": 37},
        {"views": 24, "detector_offset_bins": 0.25},
        {"views": 24, "detector_count": 60, "detector_offset_bins": -13.5},
        {"views": 1, "start_deg": 45},
    ],
    ids=["limited angle", "quarter offset", "truncated detector", "one diagonal view"],
)
def test_adjoint_of_unusual_scans(geometry_type, scan, rng):
    operator = CTOperator(geometry_type.evenly_spaced(**scan))
    assert adjoint_error(operator, rng) < 1e-6


def test_rebuilt_rows_equal_the_stored_matrix(geometry_type, rng):
    geometry = geometry_type.evenly_spaced(
        200, image_shape=(70, 90), pixel_spacing_mm=4.0, detector_offset_bins=0.25
    )
    stored, rebuilt = CTOperator(geometry), CTOperator(geometry, matrix_limit_bytes=0)
    image = torch.rand(3, 1, *geometry.image_shape, generator=rng)
    measurement = torch.rand(3, *stored.measurement_shape, generator=rng)
    assert stored.matrix_bytes() > 0
    assert rebuilt.matrix_bytes() == 0
    torch.testing.assert_close(rebuilt.forward(image), stored.forward(image), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(rebuilt.adjoint(measurement), stored.adjoint(measurement), rtol=1e-5, atol=1e-3)
    assert adjoint_error(rebuilt, rng) < 1e-6


@pytest.mark.parametrize("limit", [0, 10**9], ids=["rows rebuilt", "stored"])
def test_gradients_are_the_adjoints(geometry_type, limit, rng):
    geometry = geometry_type.evenly_spaced(3, image_shape=(5, 7), pixel_spacing_mm=3.0, start_deg=10)
    operator = CTOperator(geometry, matrix_limit_bytes=limit)
    image = torch.rand(2, 1, 5, 7, generator=rng, dtype=torch.float64, requires_grad=True)
    measurement = torch.rand(2, *operator.measurement_shape, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator.forward, (image,))
    assert torch.autograd.gradcheck(operator.adjoint, (measurement,))
    assert torch.autograd.gradgradcheck(lambda x: operator.forward(x).square(), (image,))
    assert torch.autograd.gradcheck(operator.pseudo_inverse, (measurement,))


def test_gradients_of_the_blur(rng):
    blur = build_operator("blur", (9, 10), 3.0)
    image = torch.rand(1, 1, 9, 10, generator=rng, dtype=torch.float64, requires_grad=True)
    for product in (blur.forward, blur.adjoint, blur.pseudo_inverse):
        assert torch.autograd.gradcheck(product, (image,))


def test_precision_follows_the_argument_and_autocast_leaves_it_alone(rng):
    operator = build_operator("fan-flat", (40, 50), 3.0, views=5)
    image = torch.rand(1, 1, 40, 50, generator=rng, dtype=torch.float64)
    exact = operator.forward(image)
    assert exact.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        single = operator.forward(image.float())
    assert single.dtype == torch.float32
    assert math.isclose(float((single - exact).norm() / exact.norm()), 0, abs_tol=1e-6)
    assert operator.forward(image.half()).dtype == torch.float32
