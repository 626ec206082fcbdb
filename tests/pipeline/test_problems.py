"""The inverse problems: what each preset measures. That the prior restores it is asserted in test_examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from klip_engine.errors import UsageError
from klip_engine.measurement import build_scanner
from klip_engine.operators import CTOperator, GaussianBlur
from klip_engine.presets import PRESETS
from klip_engine.settings import DetectionSettings, OperatorSettings


def test_limited_angles_and_fans_are_scanned_as_they_are_called():
    for preset, kind, views, arc in (
        ("sparse-24", "parallel", 24, 180),
        ("fan-24", "fan-flat", 24, 360),
        ("limited-angle", "parallel", 120, 120),
        ("low-dose", "parallel", 180, 180),
    ):
        operator = build_scanner(PRESETS[preset].operator, (32, 40), 3.0, 0).operator
        assert isinstance(operator, CTOperator)
        angles = np.degrees(operator.geometry.view_angles_rad)
        assert operator.geometry.kind == kind
        assert len(angles) == views
        assert angles[1] * views == pytest.approx(arc)


@pytest.mark.parametrize(("shape", "kernel", "sigma"), [((256, 256), 21, 9.0), ((128, 160), 11, 4.5)])
def test_the_blur_is_the_published_one_scaled_with_the_image(shape, kernel, sigma):
    blur = build_scanner(PRESETS["deblur"].operator, shape, 1.0, 0).operator
    assert isinstance(blur, GaussianBlur)
    assert (blur.kernel_size, blur.sigma) == (kernel, sigma)


def test_the_blur_is_what_was_asked_for_where_it_does_not_scale():
    blur = build_scanner(OperatorSettings("blur", kernel_size=5, sigma_px=0.7), (256, 300), 1.0, 0).operator
    assert isinstance(blur, GaussianBlur)
    assert (blur.kernel_size, blur.sigma) == (5, 0.7)


@pytest.mark.parametrize("name", ["identity", "blur"])
def test_added_noise_is_white_of_the_stated_deviation_and_belongs_to_slice_and_seed(name):
    settings = OperatorSettings(name, noise_hu=50.0, add_noise=True)
    scanner = build_scanner(settings, (64, 80), 3.0, 7, channels=3)
    clean = build_scanner(replace(settings, add_noise=False), (64, 80), 3.0, 7, channels=3)
    images = torch.zeros(2, 3, 64, 80)
    noise = scanner.measure(images, [4, 9]).data - clean.measure(images, [4, 9]).data
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean() / noise.square().mean()
    assert abs(neighbours.item()) < 0.02
    assert torch.equal(scanner.measure(images[:1], [9]).data, scanner.measure(images, [4, 9]).data[1:])
    other = build_scanner(settings, (64, 80), 3.0, 8, channels=3)
    assert not torch.equal(other.measure(images[:1], [9]).data, scanner.measure(images[:1], [9]).data)


def test_without_added_noise_the_image_is_taken_as_it_is():
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(build_scanner(OperatorSettings(), (8, 8), 3.0, 0).measure(image, [0]).data, image)


@pytest.mark.parametrize(
    ("operator", "sentence"),
    [
        (OperatorSettings("parallel", add_noise=True), "dose"),
        (OperatorSettings("parallel", kernel_size=5), "no blur"),
        (OperatorSettings("identity", sigma_px=2.0), "identity"),
        (OperatorSettings("blur", kernel_size=4), "kernel_size"),
        (OperatorSettings("blur", dose="low"), "no dose"),
    ],
)
def test_operators_that_do_not_fit_are_usage_errors(operator, sentence):
    with pytest.raises(UsageError, match=sentence):
        build_scanner(operator, (32, 32), 3.0, 0)


@pytest.mark.parametrize(
    "field", [{"kernel_size": 0}, {"sigma_px": -1.0}, {"per_pixels": 2.5}, {"add_noise": "yes"}, {"noise_hu": 0}]
)
def test_impossible_operator_settings_are_named(field):
    with pytest.raises(UsageError, match=next(iter(field))):
        OperatorSettings("blur", **field)


def test_a_preset_survives_its_way_through_a_result():
    for preset in PRESETS.values():
        assert DetectionSettings.from_dict(preset.to_dict()) == preset


def test_only_what_is_set_enters_the_key_of_a_null_distribution():
    plain = PRESETS["default"].null_settings("x", "drawn")["operator"]
    assert set(plain) == {"name", "views", "arc_deg", "start_deg", "dose", "noise_hu"}
    noisy = PRESETS["denoise"].null_settings("x", "drawn")["operator"]
    assert set(noisy) == {*plain, "add_noise"}
