"""FIPS .mat as written: the published fields by scipy, and ASTRA's projection of a picture with these numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.io

from klip_engine.errors import UsageError
from klip_engine.io.projections import read_projections, write_projections
from tests.projections.scanner import BODY, MU_WATER, fan_scan, parallel_scan, slice_image, turn

SOD, SDD = 595.0, 1085.6
MIDDLE = 99.5


def scan(angles=None, **more):
    angles = turn(24, 10.0) if angles is None else angles
    return fan_scan(angles=angles, shape="flat", columns=200, central_column=MIDDLE, column_pitch=3.6, **more)


@pytest.mark.parametrize("change", [{}, {"mirrored": True}, {"angles": turn(24, 300.0)[::-1] * 0.4}])
def test_the_published_fields_hold_what_astra_measures(tmp_path, change):
    """ASTRA makes of the file's numbers, as the authors do, the fan that measures the sinogram in the file."""
    astra = pytest.importorskip("astra")
    write_projections(tmp_path / "scan.mat", scan(**change))
    content = scipy.io.loadmat(tmp_path / "scan.mat", squeeze_me=True, struct_as_record=False)
    data = content["CtDataLimited" if "angles" in change else "CtDataFull"]
    p = data.parameters
    assert p._fieldnames == [
        *("distanceSourceDetector", "distanceSourceOrigin", "geometricMagnification", "numDetectorsPost"),
        *("pixelSizePost", "effectivePixelSizePost", "angles"),
    ]
    assert data.type == "2D"
    assert p.distanceSourceOrigin == pytest.approx(SOD)
    assert p.geometricMagnification == pytest.approx(SDD / SOD)
    assert data.sinogram.shape == (len(p.angles), p.numDetectorsPost)
    pixel, n = p.effectivePixelSizePost, 180
    side = 320 / pixel
    fan = astra.create_proj_geom(  # in units of the effective pixel, as HelTomo does
        "fanflat",
        p.geometricMagnification,
        int(p.numDetectorsPost),
        np.radians(p.angles),
        p.distanceSourceOrigin / pixel,
        (p.distanceSourceDetector - p.distanceSourceOrigin) / pixel,
    )
    volume = astra.create_vol_geom(n, n, -side / 2, side / 2, -side / 2, side / 2)
    projector = astra.create_projector("line_fanflat", fan, volume)
    picture = MU_WATER * slice_image(BODY, 0.0, (n, n), 320 / n)  # row 0, y smallest, on top: the patient's front
    _, sinogram = astra.create_sino(picture, projector)
    error = np.linalg.norm(sinogram * pixel - data.sinogram) / np.linalg.norm(data.sinogram)
    assert error < 0.02


def test_the_scan_comes_back(tmp_path):
    made = replace(scan(), i0=1e5, mu_water_per_mm=0.02, isocentre_mm=(1.0, 2.0, 3.0))
    notices = write_projections(tmp_path / "scan.mat", made, provenance={"made": "here"})
    read = read_projections(tmp_path / "scan.mat")
    for view in range(24):
        # y of the stage is the picture's; the columns run the other way around
        assert np.abs(read.elements_mm(view)[:, ::-1] - made.elements_mm(view)).max() < 1e-6
        assert np.abs(read.trajectory.source_mm[view] - made.trajectory.source_mm[view]).max() < 1e-6
    assert np.array_equal(read.line_integrals[..., ::-1], made.line_integrals)
    said = " ".join(notices)
    for words in ("photons in air", "isocentre", "provenance", "+42 HU"):
        assert words in said


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (parallel_scan(angles=turn(6), columns=20), "a parallel beam"),
        (fan_scan(angles=turn(6), columns=20), "a cylindrical detector"),
        (scan(rows=2), "2 rows"),
        (scan(table_z=np.arange(24.0)), "moves along the body"),
        (scan(spot_radius=(-1.0) ** np.arange(24)), "circle about the isocentre"),
        (fan_scan(angles=turn(6), shape="flat", columns=20, central_column=9.75), "0.8 mm out of the middle"),
        (scan(angles=turn(24)[np.r_[0:12, 13, 12, 14:24]]), "one way"),
    ],
)
def test_what_the_format_cannot_hold(tmp_path, made, sentence):
    with pytest.raises(UsageError, match=f"FIPS .mat cannot hold this scan: .*{sentence}.*write klip-projections"):
        write_projections(tmp_path / "scan.mat", made)
    assert list(tmp_path.iterdir()) == []
