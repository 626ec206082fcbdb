"""RTK geometries as written: by RTK's documented formulas, and by RTK itself where it is installed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.errors import UsageError
from klip_engine.io.projections import read_projections, write_projections
from klip_engine.projections import Trajectory
from tests.projections.scanner import BODY, MU_WATER, ellipsoid_integrals, fan_scan, parallel_scan, turn

ANGLES = turn(9, 25.0)
FLIGHT = (-1.0) ** np.arange(9)


def tilted():
    """A flat detector that leans and turns in its plane, as after a calibration."""
    made = fan_scan(angles=ANGLES, shape="flat", columns=40, rows=5, column_pitch=14.0, row_pitch=9.0)
    path = made.trajectory
    u, v = path.det_u.copy(), path.det_v.copy()
    for axis, degrees in ((np.array([0.0, 0.0, 1.0]), 3.0), (np.array([0.6, -0.8, 0.0]), 5.0)):
        turned = sitk.VersorTransform(axis.tolist(), np.radians(degrees))
        u, v = (np.array([turned.TransformVector(row.tolist(), (0, 0, 0)) for row in part]) for part in (u, v))
    trajectory = Trajectory(path.det_center_mm + np.array([0.0, 3.0, 1.0]), u, v, source_mm=path.source_mm)
    moved = replace(made, trajectory=trajectory)
    values = np.empty_like(made.line_integrals)
    for view in range(9):
        ray = moved.elements_mm(view) - path.source_mm[view]
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        values[view] = MU_WATER * ellipsoid_integrals(BODY, np.broadcast_to(path.source_mm[view], ray.shape), ray)
    return replace(moved, line_integrals=values)


SCANS = {
    "flat": fan_scan(angles=ANGLES, shape="flat", columns=50, rows=4, column_pitch=12.0, central_column=20.25),
    "curved": fan_scan(angles=ANGLES, columns=50, rows=4, column_pitch=12.0, central_column=20.25),
    "the other way": fan_scan(angles=ANGLES, columns=50, rows=3, column_pitch=12.0, mirrored=True),
    "helix, flying spot": fan_scan(
        angles=ANGLES,
        table_z=12.0 * np.arange(9.0),
        columns=50,
        column_pitch=12.0,
        spot_angle=0.004 * FLIGHT,
        spot_z=FLIGHT,
        spot_radius=FLIGHT,
    ),
    "tilted": tilted(),
    "parallel": parallel_scan(angles=ANGLES, columns=40, rows=2, pitch=9.0),
}
EACH = pytest.mark.parametrize("made", SCANS.values(), ids=SCANS.keys())


def documented_rays(folder):
    """Start and unit direction [view, row, column, 3] in LPS from XML and image alone, by RTK's documentation."""
    root = ET.parse(folder / "scan.xml").getroot()
    image = sitk.ReadImage(str(folder / "scan.mha"))
    radius = float(root.findtext("RadiusCylindricalDetector", "0"))
    u, v = (image.GetOrigin()[k] + image.GetSpacing()[k] * np.arange(image.GetSize()[k]) for k in (0, 1))
    starts, directions = [], []
    for projection in root.iter("Projection"):
        p = {child.tag: float(child.text) for child in projection if child.tag != "Matrix"}
        turned = sitk.Euler3DTransform()
        angles = (p["OutOfPlaneAngle"], p["GantryAngle"], p["InPlaneAngle"])
        turned.SetRotation(*(-np.radians(angle) for angle in angles))
        back = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ np.array(turned.GetMatrix()).reshape(3, 3).T
        across = u + p["ProjectionOffsetX"]
        distance = p["SourceToDetectorDistance"]
        pixels = np.zeros((len(v), len(u), 3))
        pixels[..., 0], pixels[..., 1] = across, (v + p["ProjectionOffsetY"])[:, None]
        pixels[..., 2] = p["SourceToIsocenterDistance"] - distance
        if radius:
            pixels[..., 0] = radius * np.sin(across / radius)
            pixels[..., 2] += radius * (1 - np.cos(across / radius))
        source = np.array([p["SourceOffsetX"], p["SourceOffsetY"], p["SourceToIsocenterDistance"]])
        ray = np.broadcast_to([0.0, 0.0, -1.0], pixels.shape) if distance == 0 else pixels - source
        starts.append((pixels if distance == 0 else np.broadcast_to(source, pixels.shape)) @ back.T)
        directions.append(ray @ back.T / np.linalg.norm(ray, axis=-1, keepdims=True))
    return np.array(starts), np.array(directions)


@EACH
def test_the_files_describe_the_rays_that_were_measured(tmp_path, made):
    write_projections(tmp_path / "scan.xml", made)
    start, direction = documented_rays(tmp_path)
    exact = MU_WATER * ellipsoid_integrals(BODY, start, direction)
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "scan.mha")))
    assert exact.max() > 1
    assert np.abs(values - exact).max() < 1e-5


@EACH
def test_the_scan_comes_back(tmp_path, made):
    write_projections(tmp_path / "scan.xml", made)
    read = read_projections(tmp_path / "scan.xml")
    up = slice(None) if np.allclose(read.trajectory.det_v, made.trajectory.det_v) else slice(None, None, -1)
    assert np.array_equal(read.line_integrals[:, up], made.line_integrals)
    for view in range(9):
        moved = read.elements_mm(view)[up] - made.elements_mm(view)
        if made.beam == "parallel":  # along the ray, where the detector stands means nothing
            moved -= (moved @ made.trajectory.ray_direction[view])[..., None] * made.trajectory.ray_direction[view]
        else:
            assert np.abs(read.trajectory.source_mm[view] - made.trajectory.source_mm[view]).max() < 1e-6
        assert np.abs(moved).max() < 1e-6


@EACH
def test_rtk_reads_and_projects_it(tmp_path, made):
    """RTK checks the matrices against the parameters when it reads; then it projects the phantom itself."""
    itk = pytest.importorskip("itk", reason="itk-rtk is not installed")
    write_projections(tmp_path / "scan.xml", made)
    rtk, kind = itk.RTK, itk.Image[itk.F, 3]
    reader = rtk.ThreeDCircularProjectionGeometryXMLFileReader.New()
    reader.SetFilename(str(tmp_path / "scan.xml"))
    reader.GenerateOutputInformation()
    stack = itk.imread(str(tmp_path / "scan.mha"), itk.F)
    total = 0
    for one in BODY:
        blank = rtk.ConstantImageSource[kind].New(
            Origin=itk.origin(stack), Spacing=itk.spacing(stack), Size=itk.size(stack), Constant=0.0
        )
        shape = rtk.RayEllipsoidIntersectionImageFilter[kind, kind].New(
            Input=blank.GetOutput(), Geometry=reader.GetOutputObject(), Density=MU_WATER * one.value
        )
        (x, y, z), (a, b, c) = one.centre, one.semi_axes
        shape.SetCenter((x, z, -y))
        shape.SetAxis((a, c, b))
        shape.Update()
        total = total + itk.GetArrayFromImage(shape.GetOutput())
    assert np.abs(total - itk.GetArrayFromImage(stack)).max() < 2e-4 * total.max()


def test_what_it_cannot_hold_and_what_it_loses(tmp_path):
    made = SCANS["flat"]
    weights = np.ones(made.line_integrals.shape, np.float32)
    notices = write_projections(tmp_path / "scan.xml", replace(made, weights=weights, i0=1e5))
    assert any("weights" in notice and "photons in air" in notice for notice in notices)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.mha", "scan.xml"]
    with pytest.raises(UsageError, match="end it in .xml"):
        write_projections(tmp_path / "scan.mha", made, "rtk")
    (tmp_path / "chest.mha").write_text("a volume")
    with pytest.raises(UsageError, match="chest.mha, .* is the image of something else"):
        write_projections(tmp_path / "chest.xml", made)
    assert (tmp_path / "chest.mha").read_text() == "a volume"
    oblique = SCANS["parallel"]
    rays = oblique.trajectory.ray_direction + 0.2 * oblique.trajectory.det_u
    leaning = replace(oblique.trajectory, ray_direction=rays / np.linalg.norm(rays, axis=1, keepdims=True))
    with pytest.raises(UsageError, match="right angles"):
        write_projections(tmp_path / "other.xml", replace(oblique, trajectory=leaning))
    assert not (tmp_path / "other.xml").exists()
    assert not (tmp_path / "other.mha").exists()
