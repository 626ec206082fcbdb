"""Healthy slices kept beside a prior."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from klip_engine.errors import PriorError
from klip_engine.priors import ReferenceSlices, load_reference, save_reference


def _slices(count: int) -> ReferenceSlices:
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 1000, (count, 12, 10)).astype(np.float32)
    return ReferenceSlices(hu, rng.random((count, 12, 10)) > 0.4, np.arange(count) // 3)


def test_they_come_back_as_they_were(tmp_path):
    slices = _slices(7)
    save_reference(tmp_path, slices)
    back = load_reference(tmp_path, (12, 10))
    assert back is not None
    np.testing.assert_array_equal(back.hu, slices.hu)
    np.testing.assert_array_equal(back.body, slices.body)
    np.testing.assert_array_equal(back.scan, slices.scan)
    assert back.describe() == "7 slices of 3 healthy scans"
    assert not list(tmp_path.rglob("*.partial"))


def test_fewer_are_spread_evenly_and_asking_for_more_gives_all():
    slices = _slices(7)
    np.testing.assert_array_equal(slices.evenly(3).hu, slices.hu[[0, 3, 6]])
    assert slices.evenly(50) is slices


def test_none_is_no_error_but_damage_is(tmp_path):
    assert load_reference(tmp_path, (12, 10)) is None
    save_reference(tmp_path, _slices(2))
    with pytest.raises(PriorError, match="do not fit the prior's grid"):
        load_reference(tmp_path, (12, 11))
    path = tmp_path / "reference" / "slices.safetensors"
    save_file({"hu": np.zeros((1, 12, 10), np.int16)}, path)
    with pytest.raises(PriorError, match="damaged.*calibrate"):
        load_reference(tmp_path, (12, 10))
    path.write_bytes(b"no safetensors")
    with pytest.raises(PriorError, match="damaged"):
        load_reference(tmp_path, (12, 10))
