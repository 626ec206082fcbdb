"""Three small scans that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from klip_engine.volume import Geometry
from tests.conftest import torso


@pytest.fixture
def ct_files(tmp_path: Path) -> Path:
    for number in range(3):
        geometry = Geometry((120, 96, 6), (4.0, 4.0, 5.0))
        hu = torso(6, seed=number).astype(np.int16)
        sitk.WriteImage(geometry.image(hu), tmp_path / f"patient{number}.nrrd")
    table = "file,patient,slices\n" + "".join(
        f"patient{n}.nrrd,P{n},{ranges}\n" for n, ranges in enumerate(['"0-1, 4-5"', "all", "2-3"])
    )
    (tmp_path / "table.csv").write_text(table)
    return tmp_path
