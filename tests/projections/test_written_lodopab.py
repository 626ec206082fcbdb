"""LoDoPaB-CT observations as written, by h5py, and against ASTRA's projection with the paper's numbers."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest

from klip_engine.errors import UsageError
from klip_engine.io.projections import read_projections, write_projections
from tests.projections.scanner import Ellipsoid, fan_scan, parallel_scan, slice_image, turn

BODY = (Ellipsoid((-4, 6, 0), (90, 70, 400), 1.0), Ellipsoid((32, -20, 0), (18, 25, 400), 0.5))
PAPER_ANGLES = (np.arange(1000) + 0.5) * np.pi / 1000
BIN = 260 * np.sqrt(2) / 513
MU_MAX = 81.35858


def scan(rows=1, **more):
    choices = {"angles": PAPER_ANGLES, "columns": 513, "pitch": BIN, "central_column": 256.0} | more
    return parallel_scan(BODY, rows=rows, mu_water_per_mm=0.02, **choices)


def test_an_observation_is_what_astra_measures(tmp_path):
    """A square of 26 cm, rows from front to back, in the paper's units: metres, divided by mu_max."""
    astra = pytest.importorskip("astra")
    made = scan()
    write_projections(tmp_path / "observation.hdf5", made, "lodopab")
    with h5py.File(tmp_path / "observation.hdf5") as file:
        assert list(file) == ["data"]
        assert file["data"].dtype == np.float32
        observation = file["data"][0][::50]
    assert observation.shape == (20, 513)
    picture = 19.2 * slice_image(BODY, 0.0, (362, 362), 260 / 362) / MU_MAX
    volume = astra.create_vol_geom(362, 362, -0.13, 0.13, -0.13, 0.13)
    rays = [
        (np.sin(a), np.cos(a), 0, 0, BIN / 1000 * np.cos(a), -BIN / 1000 * np.sin(a)) for a in PAPER_ANGLES[::50]
    ]  # ASTRA's y points up, the slice's down
    parallel = astra.create_proj_geom("parallel_vec", 513, np.array(rays))
    projector = astra.create_projector("linear", parallel, volume)
    _, sinogram = astra.create_sino(picture, projector)
    assert np.linalg.norm(sinogram - observation) < 0.02 * np.linalg.norm(observation)


def test_rows_become_items_and_come_back(tmp_path):
    made = scan(rows=3)
    values = made.line_integrals * np.array([1.0, 0.5, 2.0], np.float32)[:, None]
    made = replace(made, line_integrals=values)
    notices = write_projections(tmp_path / "scan.h5", made, "LoDoPaB-CT")
    for item in range(3):
        read = read_projections(tmp_path / "scan.h5", item=item)
        largest = np.minimum(values[:, item], -np.log(0.1 / 4096))
        assert np.abs(read.line_integrals[:, 0] - largest).max() < 2e-6
        assert read.detector.column_pitch_mm == pytest.approx(BIN, abs=1e-12)
    assert sum("no photon of 4096" in notice for notice in notices) == (values.max() > 10.62)
    assert any("noise of 4096 photons" in notice for notice in notices)


def test_blocks_of_128(tmp_path):
    zero = np.broadcast_to(np.float32(0), (1000, 130, 513))
    made = scan()
    made = replace(made, line_integrals=zero, detector=replace(made.detector, rows=130))
    notices = write_projections(tmp_path / "observation_test.hdf5", made, "lodopab")
    shapes = {}
    for path in tmp_path.iterdir():
        with h5py.File(path) as file:
            shapes[path.name] = file["data"].shape
    assert shapes == {
        "observation_test_000.hdf5": (128, 1000, 513),
        "observation_test_001.hdf5": (2, 1000, 513),
    }
    assert any("130 slices were written to 2 files" in notice for notice in notices)
    with pytest.raises(UsageError, match="observation_test_000.hdf5 is there already"):
        write_projections(tmp_path / "observation_test.hdf5", made, "lodopab")


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (fan_scan(angles=turn(6), columns=20), "this is a fan beam"),
        (parallel_scan(angles=turn(6), columns=20), "6 views of 20"),
        (scan(angles=PAPER_ANGLES + 0.001), "rays run elsewhere"),
        (scan(central_column=256.25), "rays run elsewhere"),
        (scan(pitch=0.72), "rays run elsewhere"),
    ],
    ids=["fan", "few", "angles", "offset", "pitch"],
)
def test_what_the_format_cannot_hold(tmp_path, made, sentence):
    with pytest.raises(UsageError, match=f"1000 parallel views .*{sentence}.*write klip-projections"):
        write_projections(tmp_path / "scan.h5", made, "lodopab")
    assert list(tmp_path.iterdir()) == []


def test_an_observation_written_again_is_the_same(tmp_path):
    """Bit for bit but for the division: nothing is lost of what came from such a file."""
    write_projections(tmp_path / "first.hdf5", scan(i0=4096.0), "lodopab")
    first = read_projections(tmp_path / "first.hdf5")
    notices = write_projections(tmp_path / "again.hdf5", first, "lodopab")
    again = read_projections(tmp_path / "again.hdf5")
    assert np.abs(again.line_integrals - first.line_integrals).max() < 1e-6
    assert again.volume_hint == first.volume_hint
    assert np.allclose(again.weights, first.weights, rtol=1e-5)
    assert notices == ()
