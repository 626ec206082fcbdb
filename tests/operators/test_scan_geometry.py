"""Geometries: what is refused and how it is said, what a scan covers, what survives JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from klip_engine.errors import InputError, UsageError
from klip_engine.operators import (
    CTOperator,
    FanCurvedGeometry,
    FanFlatGeometry,
    ParallelGeometry,
    geometry_from_dict,
)

VALID = {"view_angles_rad": (0.0, 1.0), "detector_count": 200, "detector_pitch_mm": 2.0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("view_angles_rad", ()),
        ("view_angles_rad", (0.0, math.nan)),
        ("view_angles_rad", 3),
        ("detector_count", 0),
        ("detector_count", 12.5),
        ("detector_pitch_mm", -1.0),
        ("detector_pitch_mm", math.inf),
        ("detector_pitch_mm", "wide"),
        ("detector_offset_bins", math.nan),
        ("image_shape", (128,)),
        ("image_shape", (128, 0)),
        ("pixel_spacing_mm", 0.0),
    ],
)
def test_impossible_values_are_refused_by_name(geometry_type, field, value):
    with pytest.raises(InputError, match=field):
        geometry_type(**VALID | {field: value})


@pytest.mark.parametrize("geometry_type", [FanFlatGeometry, FanCurvedGeometry], ids=lambda cls: cls.kind)
def test_a_source_inside_the_image_or_behind_the_detector_is_refused(geometry_type):
    with pytest.raises(InputError, match=r"source_to_isocentre_mm .* inside the image"):
        geometry_type(**VALID, source_to_isocentre_mm=200.0)
    with pytest.raises(InputError, match=r"source_to_detector_mm .* less than source_to_isocentre_mm"):
        geometry_type(**VALID, source_to_detector_mm=500.0)


def test_a_detector_curved_past_the_source_is_refused():
    with pytest.raises(InputError, match="detector_count"):
        FanCurvedGeometry(**VALID | {"detector_count": 2000})


@pytest.mark.parametrize(
    "request_", [{"views": 0}, {"views": 2.5}, {"views": 9, "arc_deg": 0}, {"views": 9, "arc_deg": 400}]
)
def test_impossible_requests_are_refused(geometry_type, request_):
    with pytest.raises(UsageError, match=r"views|arc_deg"):
        geometry_type.evenly_spaced(**request_)


def test_views_and_usual_arc(geometry_type):
    geometry = geometry_type.evenly_spaced(4)
    usual = {"parallel": [0, 45, 90, 135], "fan-flat": [0, 90, 180, 270], "fan-curved": [0, 90, 180, 270]}
    assert np.degrees(geometry.view_angles_rad) == pytest.approx(usual[geometry.kind])
    limited = geometry_type.evenly_spaced(3, start_deg=-30, arc_deg=60)
    assert np.degrees(limited.view_angles_rad) == pytest.approx([-30, -10, 10])


@pytest.mark.parametrize("offset", [0.0, 0.25, -3.0])
def test_the_usual_detector_sees_every_pixel_from_every_angle(geometry_type, offset):
    geometry = geometry_type.evenly_spaced(16, image_shape=(40, 50), detector_offset_bins=offset)
    seen = CTOperator(geometry).adjoint(torch.ones(1, 16, geometry.detector_count, dtype=torch.float64))
    per_view = seen / 16 / geometry.pixel_spacing_mm
    assert per_view.min() > 0.7
    ends = geometry.detector_positions_mm()[[0, -1]].abs().min()
    corner_shadow = geometry.image_radius_mm * geometry.magnification
    assert ends >= corner_shadow


def test_json_round_trip_and_value_semantics(geometry_type):
    geometry = geometry_type.evenly_spaced(5, detector_offset_bins=0.25)
    read_back = geometry_from_dict(json.loads(json.dumps(geometry.to_dict())))
    assert read_back == geometry
    assert hash(read_back) == hash(geometry)
    assert type(read_back) is geometry_type


def test_numpy_values_become_plain_ones():
    geometry = ParallelGeometry(
        view_angles_rad=np.linspace(0, 1, 3), detector_count=np.int64(5), detector_pitch_mm=np.float32(1.5)
    )
    assert json.dumps(geometry.to_dict())
    assert isinstance(hash(geometry), int)


def test_stored_geometries_of_another_kind_or_with_other_fields_are_refused():
    with pytest.raises(InputError, match=r"helix.*parallel, fan-flat, fan-curved"):
        geometry_from_dict({"kind": "helix"})
    with pytest.raises(InputError, match=r"parallel.*source_to_isocentre_mm"):
        geometry_from_dict({"kind": "parallel", **VALID, "source_to_isocentre_mm": 500.0})


def test_fans_of_a_very_distant_source_are_parallel():
    """Both detectors, at a magnification of 1: their rays are those of the parallel scan."""
    scan = {
        "views": 5,
        "start_deg": 12,
        "arc_deg": 100,
        "image_shape": (30, 40),
        "detector_offset_bins": 0.25,
    }
    parallel = ParallelGeometry.evenly_spaced(**scan, detector_count=60)
    image = torch.rand(1, 1, 30, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = CTOperator(parallel).forward(image)
    for fan in (FanFlatGeometry, FanCurvedGeometry):
        distant = fan.evenly_spaced(
            **scan, detector_count=60, source_to_isocentre_mm=1e8, source_to_detector_mm=1e8
        )
        torch.testing.assert_close(CTOperator(distant).forward(image), expected, rtol=1e-4, atol=1e-2)
