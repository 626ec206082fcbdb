"""CT volumes from files: whatever SimpleITK reads, or a DICOM series wherever it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from klip_engine.errors import InputError, UsageError, resource_errors
from klip_engine.io.dicom_series import Study, open_study, read_dicom
from klip_engine.io.dicom_sources import is_dicom_source
from klip_engine.io.hounsfield import check_and_clip_hu, check_geometry
from klip_engine.io.loaded import LoadedCT, describe
from klip_engine.volume import CTVolume, Geometry

__all__ = ["LoadedCT", "find_study", "read_ct"]


def read_ct(source: Path | Sequence[Path], *, series: str | None = None) -> LoadedCT:
    """Read a CT volume in HU, [z, y, x] float32, with its place in the patient (LPS mm).

    source: a volume file (NRRD, NIfTI, MetaImage, ...); for DICOM a file, a folder, a zip archive, a DICOMDIR, a
    list of files (.txt) or a sequence of files.
    series: for DICOM, the SeriesInstanceUID, series number or hash to read; by the rules of `series_choice`
    otherwise.
    Raises InputError with one sentence that names the file and the cure; UsageError for a `series` that is
    not there; ResourceError when memory or the temporary disk gives out.
    """
    path = _named_path(source)
    with resource_errors():
        if not isinstance(path, Path) or is_dicom_source(path):
            return read_dicom(path, series=series)
        if series is not None:
            raise UsageError(f"{path} is not DICOM, so there is no series to choose: leave the series out")
        return _read_volume_file(path)


def find_study(source: Path | Sequence[Path]) -> Study | None:
    """The CT series of a DICOM source before their pixels are read, for `read_dicom`; None for a volume file.

    Raises InputError as `read_ct` does.
    """
    path = _named_path(source)
    return open_study(path) if not isinstance(path, Path) or is_dicom_source(path) else None


def _named_path(source: Path | Sequence[Path]) -> Path | Sequence[Path]:
    """The source, a single path checked to be there."""
    if not isinstance(source, (str, Path)):
        return source
    path = Path(source)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}; check the spelling")
    if not (path.is_dir() or path.is_file()):
        raise InputError(f"{path} is neither a file nor a folder; give a volume file or a DICOM folder")
    return path


def _read_volume_file(path: Path) -> LoadedCT:
    image_io = _image_io(path)
    if image_io == "GDCMImageIO":  # DICOM without the usual start of the file
        return read_dicom(path)
    reader = _open(path, image_io)
    image = _as_volume(_pixels(reader, path), path)
    geometry = Geometry.of(image)
    check_geometry(geometry, str(path))
    hu = sitk.GetArrayViewFromImage(image).astype(np.float32)
    check_and_clip_hu(hu, str(path))
    volume = CTVolume(hu, geometry)
    file_format = image_io.removesuffix("ImageIO").upper()
    return LoadedCT(volume, describe(volume, file_format, 1, file=path.name))


def _image_io(path: Path) -> str:
    """The name of the SimpleITK reader for a file."""
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy or export it again")
    name: str = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
    if not name:
        raise InputError(
            f"{path} is neither an image nor projection data this program reads; "
            "give a volume file (NRRD, NIfTI, MHA), DICOM, or a projection format of docs/projections.md"
        )
    return name


def _open(path: Path, image_io: str) -> sitk.ImageFileReader:
    """A reader that has read the header; refuses from the header what need not be loaded to be refused."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(image_io)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    if reader.GetNumberOfComponents() > 1:
        raise InputError(
            f"{path} has {reader.GetNumberOfComponents()} values per voxel (a colour or vector image): "
            "this is not CT; give one volume in Hounsfield units, or for a photograph a prior of photographs"
        )
    size = reader.GetSize()
    if len(size) > 4 or (len(size) == 4 and size[3] > 1):
        raise InputError(
            f"{path} holds {int(np.prod(size[3:]))} volumes (size {' x '.join(map(str, size))}); "
            "save one of them as a 3D file"
        )
    return reader


def _pixels(reader: sitk.ImageFileReader, path: Path) -> sitk.Image:
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise _unreadable(path, error) from error


def _as_volume(image: sitk.Image, path: Path) -> sitk.Image:
    """The image as 3D: a picture becomes one slice, a series of one time step its volume."""
    dimension = image.GetDimension()
    if dimension < 2:
        raise InputError(f"{path} has {dimension} dimension: this is not an image")
    if dimension == 2:
        return sitk.JoinSeries([image])
    return image[:, :, :, 0] if dimension == 4 else image


def _unreadable(path: Path, error: RuntimeError) -> InputError:
    reason = str(error).lower()
    if "orthonormal" in reason or "determinant" in reason:
        return InputError(
            f"the axes of {path} are not perpendicular (a sheared or singular direction matrix); "
            "resample it onto a rectangular grid, or read the original DICOM series, whose tilt is corrected"
        )
    if "spacing" in reason:
        return InputError(
            f"{path} has a zero or negative voxel spacing: it must be above zero; "
            "write the file again with its true spacing"
        )
    return InputError(f"{path} cannot be read: it is damaged, incomplete or not an image; export it again")
