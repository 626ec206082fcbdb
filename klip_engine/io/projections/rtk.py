"""Reads RTK's geometry XML (versions 2 and 3) and the stack of projections beside it (MHA, MHD, NRRD, TIFF).

What the parameters of a view mean is in `rtk_view.py`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from klip_engine.errors import InputError
from klip_engine.io.projections.checks import check_detector, check_trajectory
from klip_engine.io.projections.first_look import FirstLook
from klip_engine.io.projections.measured import line_integrals
from klip_engine.io.projections.options import ReadOptions
from klip_engine.io.projections.rtk_view import LPS_OF_IEC, MU_WATER_PER_MM, PARAMETERS, ROOT, RtkView
from klip_engine.projections import Detector, Projections, Trajectory, beam_of
from klip_engine.volume import FloatArray

VERSIONS = ("2", "3")
STACKS = (".mha", ".mhd", ".nrrd", ".tif", ".tiff")
_LARGEST_XML = 512 * 2**20
_COLLIMATION = ("CollimationUInf", "CollimationUSup", "CollimationVInf", "CollimationVSup")


def recognises(seen: FirstLook) -> bool:
    """XML whose root is RTK's."""
    return ROOT.encode() in seen.start and seen.start.lstrip().startswith(b"<")


def read(path: Path, options: ReadOptions) -> Projections:
    """Read a geometry and its stack: `options.stack`, or the image of the same name or the only one beside it.

    The stack holds line integrals, [view, row, column]; its spacing and origin place the elements on the detector.
    Raises InputError for other versions, a stack that does not fit, and matrices that contradict the parameters.
    """
    views, radius = _geometry(path)
    stack = options.stack or _stack_beside(path)
    image = _image(stack)
    values: FloatArray = sitk.GetArrayFromImage(image).astype(np.float32)
    if len(values) != len(views):
        raise InputError(f"{path} describes {len(views)} views but {stack} holds {len(values)}")
    detector = _detector(image, radius, stack)
    check_detector(detector, str(stack))
    trajectory = _trajectory(views, radius)
    repeated = check_trajectory(trajectory, str(path))
    measured = line_integrals(values, "line_integral", str(stack))
    tiff = stack.suffix.lower() in (".tif", ".tiff")
    return Projections(
        line_integrals=measured.values,
        trajectory=trajectory,
        detector=detector,
        beam=beam_of(trajectory, detector),
        mu_water_per_mm=MU_WATER_PER_MM,
        weights=measured.weights,
        description={"format": "RTK geometry", "file": path.name, "stack": stack.name},
        notices=(
            *repeated,
            *measured.notices,
            *(("TIFF keeps no origin: the first element was put at the detector's (0, 0)",) if tiff else ()),
            "the values were taken for line integrals: RTK's files do not say what they are",
            f"the file names no attenuation of water: {MU_WATER_PER_MM} per mm was assumed",
            "the file names no photon count: how far each ray can be trusted is unknown",
            "the patient was taken to lie head first and supine: RTK's files do not say",
        ),
    )


def _geometry(path: Path) -> tuple[list[RtkView], float]:
    """The views, and the radius of a cylindrical detector (0: flat)."""
    root = _parsed(path)
    if root.get("version") not in VERSIONS:
        raise InputError(f"{path} is version {root.get('version')} of RTK's geometry; versions 2 and 3 can be read")
    if any(root.find(f".//{name}") is not None for name in _COLLIMATION):
        raise InputError(
            f"{path} has collimation: rays outside the jaws would count as measured; remove them first"
        )
    known = {**dict.fromkeys(PARAMETERS, 0.0), **_numbers(root, path)}
    views = []
    for element in root.iter("Projection"):
        known = {**known, **_numbers(element, path)}  # as in RTK, what a view leaves out stays as it was
        views.append(RtkView(known, _matrix(element, path)))
    if not views:
        raise InputError(f"{path} describes no projection: there is no geometry")
    if len({view.parameters["SourceToDetectorDistance"] == 0 for view in views}) > 1:
        raise InputError(f"{path} mixes parallel and divergent views (SourceToDetectorDistance 0 and not 0)")
    if any(_on_the_axis(view.parameters) for view in views):
        raise InputError(
            f"{path} puts the source onto the axis of rotation: SourceToIsocenterDistance is missing or not above 0"
        )
    for number, view in enumerate(views):
        _check_matrix(view, number, path)
    return views, _number(root.find("RadiusCylindricalDetector"), path, 0.0)


def _on_the_axis(parameters: Mapping[str, float]) -> bool:
    return parameters["SourceToDetectorDistance"] != 0 and parameters["SourceToIsocenterDistance"] <= 0


def _parsed(path: Path) -> ET.Element:
    """The root; entities are not expanded because a document type with any is refused."""
    if path.stat().st_size > _LARGEST_XML:
        raise InputError(f"{path} is too large for a geometry")
    content = path.read_bytes()
    if b"<!ENTITY" in content:
        raise InputError(f"{path} defines XML entities, which no geometry needs; remove them")
    try:
        root = ET.fromstring(content)
    except ET.ParseError as error:
        raise InputError(f"{path} is no complete XML: it is damaged or truncated; copy it again") from error
    if root.tag != ROOT:
        raise InputError(f"{path} is no RTK geometry: its root is {root.tag}, not {ROOT}")
    return root


def _numbers(element: ET.Element, path: Path) -> dict[str, float]:
    found = {child.tag: child for child in element if child.tag in PARAMETERS}
    old = element.find("Angle")
    if old is not None:
        found.setdefault("GantryAngle", old)
    return {name: _number(child, path, 0.0) for name, child in found.items()}


def _number(element: ET.Element | None, path: Path, default: float) -> float:
    if element is None:
        return default
    try:
        value = float(element.text or "")
    except ValueError as error:
        raise InputError(f"{element.tag} in {path} is no number") from error
    if not np.isfinite(value):
        raise InputError(f"{element.tag} in {path} is no finite number")
    return value


def _matrix(element: ET.Element, path: Path) -> npt.NDArray[np.float64] | None:
    matrix = element.find("Matrix")
    if matrix is None:
        return None
    try:
        return np.array((matrix.text or "").split(), np.float64).reshape(3, 4)
    except ValueError as error:
        raise InputError(f"a Matrix in {path} is no 3 x 4 numbers") from error


def _check_matrix(view: RtkView, number: int, path: Path) -> None:
    """The matrix is there for information; where it contradicts the parameters somebody edited one of them."""
    if view.matrix is None:
        return
    distance = view.parameters["SourceToDetectorDistance"]
    if np.abs(view.matrix - view.projection_matrix()).max() > 1e-3 * max(1.0, distance):
        raise InputError(
            f"the matrix of view {number} in {path} contradicts its parameters; write the geometry again"
        )


def _trajectory(views: list[RtkView], radius: float) -> Trajectory:
    parallel = views[0].parameters["SourceToDetectorDistance"] == 0
    sources, centers, us, vs = [], [], [], []
    for view in views:
        p, back = view.parameters, LPS_OF_IEC @ view.rotation().T
        source = p["SourceToIsocenterDistance"]
        depth = -source if parallel else source - p["SourceToDetectorDistance"]
        x, u = p["ProjectionOffsetX"], np.array([1.0, 0.0, 0.0])
        if radius:  # the offset runs along the arc, which touches the plane of the flat detector at x = 0
            angle = x / radius
            x, u = radius * np.sin(angle), np.array([np.cos(angle), 0.0, np.sin(angle)])
            depth += radius * (1 - np.cos(angle))
        sources.append(back @ [p["SourceOffsetX"], p["SourceOffsetY"], source])
        centers.append(back @ [x, p["ProjectionOffsetY"], depth])
        us.append(back @ u)
        vs.append(back[:, 1])
    if parallel:
        rays = [-LPS_OF_IEC @ view.rotation().T[:, 2] for view in views]
        return Trajectory(np.array(centers), np.array(us), np.array(vs), ray_direction=np.array(rays))
    return Trajectory(np.array(centers), np.array(us), np.array(vs), source_mm=np.array(sources))


def _detector(image: sitk.Image, radius: float, stack: Path) -> Detector:
    size, spacing, origin = image.GetSize(), image.GetSpacing(), image.GetOrigin()
    axes = np.array(image.GetDirection()).reshape(3, 3)
    if not np.allclose(axes, np.eye(3), atol=1e-6):
        raise InputError(f"{stack} has turned axes; write the projections with the identity as direction")
    shape: Literal["flat", "cylindrical"] = "cylindrical" if radius else "flat"
    central = (-origin[0] / spacing[0], -origin[1] / spacing[1])
    return Detector(shape, size[0], size[1], spacing[0], spacing[1], central, radius or None)


def _stack_beside(path: Path) -> Path:
    same = [path.with_suffix(suffix) for suffix in STACKS if path.with_suffix(suffix).is_file()]
    images = same or sorted(p for p in path.parent.iterdir() if p.suffix.lower() in STACKS)
    if len(images) != 1:
        said = "no image" if not images else f"{len(images)} images"
        raise InputError(
            f"{path} is a geometry, and {said} of projections lie beside it ({', '.join(STACKS)}): give one the "
            f"name {path.stem}.mha"
        )
    return images[0]


def _image(stack: Path) -> sitk.Image:
    if not stack.is_file():
        raise InputError(f"no such file: {stack}, the stack of projections; check the spelling")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(stack))
    try:
        reader.ReadImageInformation()
        if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
            raise InputError(f"{stack} is no stack of grey projections (three dimensions, one value each)")
        return reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{stack} cannot be read: it is damaged or truncated; copy it again") from error
