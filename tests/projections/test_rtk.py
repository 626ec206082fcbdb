"""RTK geometries: against RTK's published formulas, and against RTK itself where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.errors import InputError
from klip_engine.io.projections import facts, read_projections
from tests.projections.ellipsoids import PHANTOM, of_projections, through

SIZE, SPACING, ORIGIN = (30, 4), (9.0, 7.0), (-120.0, -9.0)

VIEWS = [
    {"GantryAngle": 15.0 + 33 * i, "ProjectionOffsetX": -20.0 - i, "ProjectionOffsetY": 2.0 + i / 2}
    | {"InPlaneAngle": 3.0 - i, "OutOfPlaneAngle": i / 2, "SourceOffsetX": 4.0 - i, "SourceOffsetY": i - 2.0}
    for i in range(6)
]
GLOBAL = {"SourceToIsocenterDistance": 600.0, "SourceToDetectorDistance": 1050.0}


def xml(views=VIEWS, common=GLOBAL, version="3", radius=0.0, matrix: str | None = None) -> str:
    def tags(values):
        return "".join(f"<{name}>{value!r}</{name}>" for name, value in values.items())

    curved = {"RadiusCylindricalDetector": radius} if radius else {}
    extra = "" if matrix is None else f"<Matrix>{matrix}</Matrix>"
    body = "".join(f"<Projection>{tags(view)}{extra}</Projection>" for view in views)
    head = '<?xml version="1.0"?>\n<!DOCTYPE RTKGEOMETRY>\n'
    return f'{head}<RTKThreeDCircularGeometry version="{version}">{tags({**common, **curved})}{body}' + (
        "</RTKThreeDCircularGeometry>"
    )


def write(folder: Path, values: np.ndarray, text: str, suffix: str = ".mha") -> Path:
    image = sitk.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing((*SPACING, 1.0))
    image.SetOrigin((*ORIGIN, 0.0))
    sitk.WriteImage(image, str(folder / f"geometry{suffix}"))
    (folder / "geometry.xml").write_text(text)
    return folder / "geometry.xml"


def expected(views=VIEWS, radius=0.0) -> np.ndarray:
    """Line integrals by the formulas of RTK's documentation, solved for points instead of matrices."""
    stack = []
    u, v = (ORIGIN[k] + SPACING[k] * np.arange(SIZE[k]) for k in (0, 1))
    for view in views:
        gantry, out, inside = np.radians([view["GantryAngle"], view["OutOfPlaneAngle"], view["InPlaneAngle"]])
        turn = sitk.Euler3DTransform()  # Rz Rx Ry, angles negated: the volume turns, not the scanner
        turn.SetRotation(-out, -gantry, -inside)
        to_fixed = np.array(turn.GetMatrix()).reshape(3, 3).T
        source = [view["SourceOffsetX"], view["SourceOffsetY"], 600.0]
        pixels = np.empty((SIZE[1], SIZE[0], 3))
        across = u + view["ProjectionOffsetX"]
        pixels[..., 0], pixels[..., 2] = across, 600.0 - 1050.0
        if radius:
            pixels[..., 0] = radius * np.sin(across / radius)
            pixels[..., 2] += radius * (1 - np.cos(across / radius))
        pixels[..., 1] = (v + view["ProjectionOffsetY"])[:, None]
        # IEC: x right, y into the gantry, z up; a patient head first, supine: left = x, back = -z, head = y
        to_lps = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) @ to_fixed
        start = to_lps @ source
        stack.append(through(start, pixels @ to_lps.T - start))
    return np.array(stack)


@pytest.mark.parametrize("radius", [0.0, 1050.0, 1400.0], ids=["flat", "about the source", "wider"])
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_rays_follow_the_documented_formulas(tmp_path, radius, suffix):
    values = expected(radius=radius)
    read = read_projections(write(tmp_path, values, xml(radius=radius), suffix))
    assert values.max() > 1
    assert np.abs(of_projections(read) - read.line_integrals).max() < 1e-5


def test_a_tiff_keeps_no_origin_and_that_is_said(tmp_path):
    read = read_projections(write(tmp_path, expected(), xml(), ".tif"))
    assert read.detector.central_element == (0.0, 0.0)
    assert any("TIFF keeps no origin" in notice for notice in read.notices)


def test_parallel_rays(tmp_path):
    views = [{"GantryAngle": angle} for angle in (0.0, 50.0, 100.0)]
    common = {"SourceToIsocenterDistance": 500.0}
    read = read_projections(write(tmp_path, np.zeros((3, 4, 30)), xml(views, common)))
    assert read.beam == "parallel"
    assert facts(read)["geometry"]["source_to_isocentre_mm"] is None
    assert read.trajectory.ray_direction[0] == pytest.approx([0, 1, 0])  # from above, through the table


def test_against_rtk_itself(tmp_path):
    """RTK projects each ellipsoid itself and writes the geometry: rays, offsets, curvature and XML are its own."""
    itk = pytest.importorskip("itk", reason="itk-rtk is not installed")
    rtk = itk.RTK

    for radius in (0.0, 1050.0):
        geometry = rtk.ThreeDCircularProjectionGeometry.New()
        geometry.SetRadiusCylindricalDetector(radius)
        for view in VIEWS:
            geometry.AddProjection(
                600.0,
                1050.0,
                *(view[n] for n in ("GantryAngle", "ProjectionOffsetX", "ProjectionOffsetY", "OutOfPlaneAngle")),
                *(view[n] for n in ("InPlaneAngle", "SourceOffsetX", "SourceOffsetY")),
            )
        writer = rtk.ThreeDCircularProjectionGeometryXMLFileWriter.New()
        writer.SetObject(geometry)
        writer.SetFilename(str(tmp_path / "by_rtk.xml"))
        writer.WriteFile()
        kind = itk.Image[itk.F, 3]
        total = 0
        for center, half_axes, mu in PHANTOM:
            blank = rtk.ConstantImageSource[kind].New(
                Origin=(*ORIGIN, 0.0), Spacing=(*SPACING, 1.0), Size=(*SIZE, len(VIEWS)), Constant=0.0
            )
            shape = rtk.RayEllipsoidIntersectionImageFilter[kind, kind].New(
                Input=blank.GetOutput(), Geometry=geometry, Density=mu
            )
            shape.SetCenter((center[0], center[2], -center[1]))
            shape.SetAxis((half_axes[0], half_axes[2], half_axes[1]))
            shape.Update()
            total = total + itk.GetArrayFromImage(shape.GetOutput())
        read = read_projections(write(tmp_path, total, (tmp_path / "by_rtk.xml").read_text()))
        assert np.abs(of_projections(read) - total).max() < 2e-4 * total.max()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (xml()[:-40], "no complete XML"),
        (xml(version="1"), "version 1"),
        (xml(VIEWS[:5]), "describes 5 views but .* holds 6"),
        (xml([]), "describes no projection"),
        (xml(matrix="1 0 0 0  0 1 0 0  0 0 1 0"), "contradicts its parameters"),
        (xml(common={**GLOBAL, "CollimationUInf": 10.0}), "collimation"),
        (xml([*VIEWS[:5], {**VIEWS[5], "SourceToDetectorDistance": 0.0}]), "mixes parallel and divergent"),
        (xml([*VIEWS[:5], VIEWS[4]]), "the angles stand still"),
        (xml([{**view, "GantryAngle": float("nan")} for view in VIEWS]), "no finite number"),
        (xml().replace("<!DOCTYPE RTKGEOMETRY>", '<!DOCTYPE x [<!ENTITY a "b">]>'), "entities"),
    ],
)
def test_refused(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence) as refused:
        read_projections(write(tmp_path, expected(), text))
    assert refused.value.exit_code == 3


def test_a_geometry_without_its_stack_or_with_a_cut_one(tmp_path):
    path = write(tmp_path, expected(), xml())
    stack = tmp_path / "geometry.mha"
    content = stack.read_bytes()
    stack.write_bytes(content[:-100])
    with pytest.raises(InputError, match="truncated"):
        read_projections(path)
    stack.unlink()
    with pytest.raises(InputError, match="no image of projections lie"):
        read_projections(path)
    (tmp_path / "elsewhere.mha").write_bytes(content)
    assert read_projections(path).description["stack"] == "elsewhere.mha"
