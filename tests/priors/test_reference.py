"""Healthy slices kept beside a prior."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from klip_engine.errors import PriorError
from klip_engine.priors import ReferenceSlices, load_reference, save_reference


def _slices(count: int) -> ReferenceSlices:
    rng = np.random.default_rng(0)
    body = rng.random((count, 12, 10)) > 0.4
    hu = np.where(body, rng.integers(-1000, 1000, body.shape), -1000).astype(np.float32)
    return ReferenceSlices(hu, body, np.arange(count) // 3, np.arange(count))


def test_they_come_back_as_they_were(tmp_path):
    slices = _slices(7)
    save_reference(tmp_path, slices)
    back = load_reference(tmp_path, (12, 10))
    assert back is not None
    np.testing.assert_array_equal(back.hu, slices.hu)
    np.testing.assert_array_equal(back.body, slices.body)
    np.testing.assert_array_equal(back.scan, slices.scan)
    np.testing.assert_array_equal(back.stack, slices.stack)
    assert back.describe() == "7 slices of 3 healthy scans"
    assert not list(tmp_path.rglob("*.partial"))


def test_fewer_are_spread_evenly_and_asking_for_more_gives_all():
    slices = _slices(7)
    np.testing.assert_array_equal(slices.evenly(3).hu, slices.hu[[0, 3, 6]])
    assert slices.evenly(50) is slices.whole_stacks(50) is slices
    assert replace(slices, stack=np.zeros(7, int)).evenly(3).stack.tolist() == [0, 1, 2]


def test_whole_stacks_stay_together_where_they_fit():
    slices = replace(_slices(12), stack=np.array([0, 0, 0, 0, 1, 2, 3, 3, 3, 4, 5, 5]))
    assert slices.whole_stacks(9).stack.tolist() == [0, 0, 0, 0, 1, 2, 4, 5, 5]
    assert slices.whole_stacks(6).stack.tolist() == [0, 0, 0, 0, 5, 5]
    few = slices.whole_stacks(3)  # fewer than the first stack has: single slices, none a neighbour of another
    assert few.stack.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(few.hu, slices.hu[[0, 6, 11]])


def test_slices_between_two_others_and_these():
    slices = replace(_slices(12), stack=np.array([0, 0, 0, 0, 1, 2, 3, 3, 3, 4, 5, 5]))
    assert slices.stacked().stack.tolist() == [0, 0, 0, 0, 3, 3, 3]
    assert slices.describe() == "12 slices of 4 healthy scans"
    assert slices.describe(neighbours=True) == "3 slices of 2 healthy scans and 3 that stand alone"
    assert slices.stacked().describe(neighbours=True) == "3 slices of 2 healthy scans"
    assert len(_slices(4).stacked()) == 0


def test_slices_of_older_bundles_have_no_neighbours(tmp_path):
    slices = _slices(4)
    save_reference(tmp_path, slices)
    path = tmp_path / "reference" / "slices.safetensors"
    arrays = load_file(path)
    del arrays["stack"]
    arrays["hu"] = slices.hu.astype(np.int16)
    save_file(arrays, path)
    back = load_reference(tmp_path, (12, 10))
    assert back is not None
    np.testing.assert_array_equal(back.hu, slices.hu)
    assert back.stack.tolist() == [0, 1, 2, 3]
    for wrong in ([0, 1], [0, 1, 0, 2]):
        save_file(arrays | {"stack": np.array(wrong, np.int16)}, path)
        with pytest.raises(PriorError, match="stacks do not belong"):
            load_reference(tmp_path, (12, 10))


def test_how_patients_unseen_score_is_kept_with_the_slices_and_is_part_of_what_they_are(tmp_path):
    plain = _slices(7)
    slices = replace(plain, unseen={"klip": (1.5, 1.25), "klip-variance": (2.0, 1.0)})
    save_reference(tmp_path, slices)
    back = load_reference(tmp_path, (12, 10))
    assert back is not None
    assert back.unseen == slices.unseen == back.evenly(3).unseen == back.stacked().unseen
    assert len({plain.digest(), slices.digest(), replace(plain, unseen={"klip": (1.5, 1.2)}).digest()}) == 3
    path = tmp_path / "reference" / "slices.safetensors"
    arrays = load_file(path)
    for wrong in ([0.0, 1.0], [1.5, np.inf], [1.5, -1.0], [np.nan, 1.0], [1.5], [1.5, 1.0, 1.0]):
        save_file(arrays | {"unseen:klip": np.array(wrong)}, path)
        with pytest.raises(PriorError, match="damaged.*calibrate"):
            load_reference(tmp_path, (12, 10))


def test_none_is_no_error_but_damage_is(tmp_path):
    assert load_reference(tmp_path, (12, 10)) is None
    save_reference(tmp_path, _slices(2))
    with pytest.raises(PriorError, match="do not fit the prior's grid"):
        load_reference(tmp_path, (12, 11))
    path = tmp_path / "reference" / "slices.safetensors"
    arrays = load_file(path)
    save_file(arrays | {"hu": arrays["hu"][:-1]}, path)
    with pytest.raises(PriorError, match="damaged.*calibrate"):
        load_reference(tmp_path, (12, 10))
    save_file({"hu": np.zeros((1, 12, 10), np.int16)}, path)
    with pytest.raises(PriorError, match="damaged.*calibrate"):
        load_reference(tmp_path, (12, 10))
    path.write_bytes(b"no safetensors")
    with pytest.raises(PriorError, match="damaged"):
        load_reference(tmp_path, (12, 10))
