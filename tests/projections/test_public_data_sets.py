"""Formats of public data sets, written here as their authors describe them: HTC2022/FIPS .mat and LoDoPaB-CT."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.io

from klip_engine.errors import InputError, UsageError
from klip_engine.io.projections import facts, read_projections
from tests.projections.ellipsoids import Ellipsoid, of_projections, through

DISK = (Ellipsoid((6.0, -4.0, 0.0), (30.0, 22.0, 1e6), 0.02), Ellipsoid((18.0, 7.0, 0.0), (4.0, 6.0, 1e6), 0.03))
SOD, SDD, PIXEL, BINS = 410.66, 553.74, 2.0, 60


def htc_parameters(angles: np.ndarray) -> dict[str, object]:
    return {
        "distanceSourceOrigin": SOD,
        "distanceSourceDetector": SDD,
        "geometricMagnification": SDD / SOD,
        "pixelSizePost": PIXEL,
        "effectivePixelSizePost": PIXEL * SOD / SDD,
        "numDetectorsPost": float(BINS),
        "angles": angles[None],
    }


def htc_sinogram(angles: np.ndarray) -> np.ndarray:
    """ASTRA's fanflat: source at (sin a, -cos a), detector opposite, counting along (cos a, sin a), y up."""
    rows = []
    for a in np.radians(angles):
        source = SOD * np.array([np.sin(a), -np.cos(a), 0])
        along = (np.arange(BINS) - (BINS - 1) / 2)[:, None] * PIXEL * np.array([np.cos(a), np.sin(a), 0])
        pixels = -(SDD - SOD) / SOD * source + along
        up = np.array([1, -1, 1])  # the picture's rows run down, its y runs up
        rows.append(through(source * up, (pixels - source) * up, DISK))
    return np.array(rows)


def write_v5(path, angles, name="CtDataFull", **change):
    content = {"type": "2D", "sinogram": htc_sinogram(angles), "parameters": htc_parameters(angles)} | change
    scipy.io.savemat(path, {name: content}, do_compression=True)
    return path


def write_v73(path, angles, name="CtDataLimited"):
    """MATLAB 7.3: HDF5 behind 512 bytes of text, arrays with their axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        group = file.create_group(name)
        group["sinogram"] = htc_sinogram(angles).T
        for key, value in htc_parameters(angles).items():
            group.create_group("parameters") if "parameters" not in group else None
            group["parameters"][key] = np.atleast_2d(value).T
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    return path


@pytest.mark.parametrize("write", [write_v5, write_v73])
@pytest.mark.parametrize("angles", [np.arange(0, 360.5, 7.5), np.arange(31.0, 121.5, 4.5)], ids=["full", "limited"])
def test_fips_rays_are_those_of_astras_fan(tmp_path, write, angles):
    read = read_projections(write(tmp_path / "htc2022_ta.mat", angles))
    assert read.line_integrals.max() > 1
    assert np.abs(of_projections(read, DISK) - read.line_integrals).max() < 1e-5
    known = facts(read)
    assert known["geometry"]["source_to_detector_mm"] == pytest.approx(SDD)
    assert known["geometry"]["step_deg"] == pytest.approx(angles[1] - angles[0])
    repeated = any("earlier one" in notice for notice in read.notices)
    assert repeated == (angles[-1] == 360)


def test_fips_sinogram_is_that_of_astra(tmp_path):
    """The same picture projected by ASTRA itself, read back, and compared with the rays the reader understands."""
    astra = pytest.importorskip("astra")
    angles, n = np.arange(0, 180, 20.0), 256
    spacing = 100 / n
    x = (np.arange(n) - (n - 1) / 2) * spacing
    image = np.zeros((n, n))  # row 0 on top: y downwards, as DISK is meant
    for (cx, cy, _), (rx, ry, _), mu in DISK:
        image[((x[None] - cx) / rx) ** 2 + ((x[:, None] - cy) / ry) ** 2 < 1] += mu
    volume = astra.create_vol_geom(n, n, -50, 50, -50, 50)
    fan = astra.create_proj_geom("fanflat", PIXEL, BINS, np.radians(angles), SOD, SDD - SOD)
    projector = astra.create_projector("line_fanflat", fan, volume)
    _, sinogram = astra.create_sino(image, projector)
    read = read_projections(write_v5(tmp_path / "astra.mat", angles, sinogram=sinogram))
    error = of_projections(read, DISK) - read.line_integrals
    assert np.linalg.norm(error) < 0.02 * np.linalg.norm(read.line_integrals)


def test_fips_refused(tmp_path):
    angles = np.arange(0, 90, 10.0)
    good = htc_parameters(angles)
    nan = htc_sinogram(angles)
    nan[2, 3] = np.nan
    back = np.array([0.0, 10, 20, 15, 40, 50, 60, 70, 80])
    cases = [
        ({"sinogram": htc_sinogram(angles)[:-1]}, "names? 9 angles"),
        ({"sinogram": nan}, "first in view 2, row 0, column 3"),
        ({"parameters": {k: v for k, v in good.items() if k != "angles"}}, "lack angles"),
        ({"parameters": good | {"distanceSourceOrigin": 900.0}}, "the second must be larger"),
        ({"parameters": good | {"angles": back[None]}}, "do not turn one way"),
        ({"parameters": "none"}, "structure with|no structure"),
    ]
    for change, sentence in cases:
        path = write_v5(tmp_path / "bad.mat", angles, **change)
        with pytest.raises(InputError, match=sentence) as refused:
            read_projections(path)
        assert refused.value.exit_code == 3
    scipy.io.savemat(tmp_path / "other.mat", {"walnut": np.eye(3)})
    with pytest.raises(InputError, match="neither CtDataFull"):
        read_projections(tmp_path / "other.mat")
    path = write_v5(tmp_path / "cut.mat", angles)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match="truncated"):
        read_projections(path)


def write_lodopab(path, items=2, shape=(1000, 513), largest=None):
    """As the paper says: lines x cos a + y sin a = s over the diagonal of 26 cm, divided by mu_max per m."""
    angles = (np.arange(1000) + 0.5) * np.pi / 1000
    half = 0.13 * np.sqrt(2) * 1000
    s = -half + (np.arange(513) + 0.5) * 2 * half / 513
    normal = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    along = np.stack([-np.sin(angles), np.cos(angles), 0 * angles], axis=1)
    values = through(s[None, :, None] * normal[:, None], along[:, None], DISK) / 81.35858
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (items, *shape), np.float32, chunks=(1, *shape))
        for item in range(items):
            data[item] = np.resize(values, shape) * (1 - item / 2) if largest is None else largest
    return path


def test_lodopab(tmp_path):
    path = write_lodopab(tmp_path / "observation_test_000.hdf5")
    first, second = read_projections(path), read_projections(path, item=1)
    assert np.abs(of_projections(first, DISK) - first.line_integrals).max() < 1e-5
    assert np.abs(second.line_integrals - first.line_integrals / 2).max() < 1e-6
    assert np.allclose(first.weights, 4096 * np.exp(-first.line_integrals), rtol=1e-5, atol=0)
    assert (first.beam, first.mu_water_per_mm, first.i0) == ("parallel", 0.02, 4096)
    assert first.volume_hint.size == (362, 362, 1)
    assert facts(first)["field_of_view_mm"] == pytest.approx(260 * np.sqrt(2), rel=0.01)
    with pytest.raises(UsageError, match="items 0 to 1"):
        read_projections(path, item=2)
    with pytest.raises(InputError, match=r"\[1, 362, 362\]"):
        read_projections(write_lodopab(tmp_path / "images.hdf5", 1, (362, 362)))
    with pytest.raises(InputError, match="no LoDoPaB-CT observation"):
        read_projections(write_lodopab(tmp_path / "raw.hdf5", 1, largest=5.0))
