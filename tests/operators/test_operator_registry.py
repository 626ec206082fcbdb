"""Operators by name, the blur and the identity, and the cache behind the CT operators."""

from __future__ import annotations

import threading

import pytest
import torch
from scipy import ndimage

from klip_engine.errors import UsageError
from klip_engine.operators import (
    OPERATORS,
    Channelwise,
    CTOperator,
    GaussianBlur,
    LinearOperator,
    ParallelGeometry,
    build_operator,
)
from klip_engine.operators.joseph import estimated_nonzeros
from klip_engine.operators.matrix_cache import MatrixCache


@pytest.mark.parametrize("name", OPERATORS)
def test_every_name_builds_an_operator_of_the_grid(name):
    operator = build_operator(name, (20, 30), 3.0)
    assert isinstance(operator, LinearOperator)
    assert operator.image_shape == (20, 30)
    image = torch.rand(2, 1, 20, 30, generator=torch.Generator().manual_seed(0))
    assert operator.pseudo_inverse(operator.forward(image)).shape == image.shape


def test_scan_options_reach_the_scan():
    operator = build_operator("fan-curved", (128, 160), 3.0, views=30, arc_deg=200, start_deg=5, detector_count=99)
    assert isinstance(operator, CTOperator)
    assert operator.measurement_shape == (30, 99)


def test_what_does_not_exist_is_refused_with_what_does():
    with pytest.raises(UsageError, match=r"helical.*identity, blur, parallel, fan-flat, fan-curved"):
        build_operator("helical", (8, 8), 1.0)
    with pytest.raises(UsageError, match=r"identity.*views"):
        build_operator("identity", (8, 8), 1.0, views=3)
    with pytest.raises(UsageError, match=r"parallel.*sigma"):
        build_operator("parallel", (8, 8), 1.0, sigma=3)


@pytest.mark.parametrize("name", ["fan-flat", "blur"])
def test_tensors_of_another_shape_are_refused(name):
    operator = build_operator(name, (20, 30), 3.0)
    for product in (operator.forward, operator.adjoint, operator.pseudo_inverse):
        with pytest.raises(UsageError, match="batch"):
            product(torch.zeros(1, 1, 30, 20))


def test_the_blur_of_scipy(rng):
    image = torch.rand(1, 1, 24, 31, generator=rng, dtype=torch.float64)
    expected = ndimage.gaussian_filter(image[0, 0].numpy(), sigma=1.5, radius=4, mode="wrap")
    blurred = GaussianBlur((24, 31), kernel_size=9, sigma=1.5).forward(image)
    torch.testing.assert_close(blurred[0, 0], torch.from_numpy(expected))


def test_the_blur_is_undone_where_it_has_gain(rng):
    """A+ A is a projection, and A A+ A = A up to the gain that counts as lost (Penrose's conditions)."""
    blur = GaussianBlur((24, 32), kernel_size=11, sigma=2.0, smallest_gain=0.01)
    image = torch.rand(1, 1, 24, 32, generator=rng, dtype=torch.float64)
    once = blur.pseudo_inverse(blur.forward(image))
    torch.testing.assert_close(blur.pseudo_inverse(blur.forward(once)), once)
    assert (blur.forward(once) - blur.forward(image)).norm() < 0.01 * image.norm()
    gentle = GaussianBlur((24, 32), kernel_size=3, sigma=0.5)
    torch.testing.assert_close(gentle.pseudo_inverse(gentle.forward(image)), image)


@pytest.mark.parametrize(
    "options", [{"kernel_size": 4}, {"kernel_size": 99}, {"sigma": 0.0}, {"smallest_gain": 1.0}]
)
def test_impossible_blurs_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        GaussianBlur((24, 32), **options)


class Matrix:
    """Stands in for a system matrix of a given size."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def test_the_cache_drops_what_was_used_longest_ago():
    cache = MatrixCache(limit_bytes=100)
    first, second = cache.get("a", lambda: Matrix(40)), cache.get("b", lambda: Matrix(40))
    assert cache.get("a", lambda: Matrix(0)) is first
    cache.get("c", lambda: Matrix(50))
    assert cache.held_bytes() == 90
    assert cache.get("a", lambda: Matrix(0)) is first
    assert cache.get("b", lambda: Matrix(10)) is not second


def test_a_matrix_larger_than_the_cache_is_kept_alone():
    cache = MatrixCache(limit_bytes=100)
    cache.get("a", lambda: Matrix(40))
    large = cache.get("b", lambda: Matrix(500))
    assert cache.held_bytes() == 500
    assert cache.get("b", lambda: Matrix(0)) is large


def test_threads_build_a_matrix_once():
    cache, built = MatrixCache(limit_bytes=100), []

    def build() -> Matrix:
        built.append(1)
        return Matrix(1)

    threads = [threading.Thread(target=cache.get, args=("a", build)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_equal_geometries_share_one_matrix():
    geometry = ParallelGeometry.evenly_spaced(3, image_shape=(20, 20))
    again = ParallelGeometry.evenly_spaced(3, image_shape=(20, 20))
    assert CTOperator(geometry)._matrix(torch.zeros(1)) is CTOperator(again)._matrix(torch.zeros(1))


def test_the_estimate_of_nonzeros_decides_on_the_safe_side(geometry_type):
    geometry = geometry_type.evenly_spaced(30)
    held = CTOperator(geometry).matrix_bytes()
    assert held <= 2 * 8 * estimated_nonzeros(geometry) * 1.05 <= 1.4 * held


@pytest.mark.parametrize("name", OPERATORS)
def test_channels_are_measured_alone(name, rng):
    alone, lifted = build_operator(name, (20, 30), 3.0), build_operator(name, (20, 30), 3.0, channels=3)
    assert isinstance(lifted, LinearOperator)
    image = torch.rand(2, 3, 20, 30, generator=rng, dtype=torch.float64)
    measured = lifted.forward(image)
    assert measured.shape == (2, *lifted.measurement_shape)
    for channel in range(3):
        torch.testing.assert_close(measured[:, channel], alone.forward(image[:, channel : channel + 1]))
    other = torch.rand(measured.shape, generator=rng, dtype=torch.float64)
    assert (measured * other).sum().item() == pytest.approx((image * lifted.adjoint(other)).sum().item(), rel=1e-10)
    assert lifted.pseudo_inverse(measured).shape == image.shape


def test_another_number_of_channels_is_refused():
    with pytest.raises(UsageError, match="3 channels"):
        Channelwise(build_operator("blur", (20, 30), 3.0), 3).forward(torch.zeros(1, 1, 20, 30))
    with pytest.raises(UsageError, match="at least 1 channel"):
        build_operator("blur", (20, 30), 3.0, channels=0)
