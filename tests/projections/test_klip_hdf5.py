"""klip-projections/1: what is written comes back bit for bit, what is wrong is refused in its own sentence."""

from __future__ import annotations

import contextlib
import hashlib
import json
from importlib import resources

import h5py
import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klip_engine.errors import InputError
from klip_engine.io.projections import read_projections, write_projections
from klip_engine.operators.noise import TransmissionNoise
from klip_engine.projections import refuse_cone
from klip_engine.volume import Geometry
from tests.projections import klip_files


@pytest.fixture
def parts():
    return klip_files.contents()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.h5"


def refused(path, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        read_projections(path)
    assert error.value.exit_code == 3
    assert str(path) in str(error.value)


def test_counts_become_line_integrals_with_the_weights_of_the_noise_model(path, parts):
    arrays, attributes = parts
    arrays["/projections"][0, 0, 0] = 50.25  # a quarter of a photon after the dark
    arrays["/flat"][1, 3] = 0
    read = read_projections(klip_files.write(path, arrays, attributes))
    counts = np.maximum(arrays["/projections"].astype(float) - 50, 1)
    expected = -np.log(counts / 1000)
    good = np.ones(counts.shape, bool)
    good[:, 1, 3] = False
    assert read.line_integrals[good] == pytest.approx(expected[good], abs=1e-5)
    assert read.weights[good] == pytest.approx((counts**2 / (counts + 25))[good], rel=1e-4)
    assert not read.weights[~good].any()
    assert any("1 counts" in notice and "raised" in notice for notice in read.notices)
    assert any("9 elements" in notice and "bad" in notice for notice in read.notices)


def test_weights_are_those_that_operators_noise_gives_its_own_measurements(path, parts):
    torch = pytest.importorskip("torch")
    arrays, attributes = parts
    ideal = torch.linspace(0.1, 4, arrays["/projections"].size).reshape(1, 9, 24)
    noise = TransmissionNoise(i0=1e5, electronic_sigma=5.0)
    noisy = noise.apply(ideal, torch.Generator().manual_seed(1))
    transmissions = torch.exp(-noisy.measurement).numpy().reshape(9, 2, 12).astype(np.float32)
    del arrays["/flat"], arrays["/dark"]
    arrays["/projections"] = transmissions
    read = read_projections(klip_files.write(path, arrays, attributes | {"I0": 1e5}, "transmission"))
    assert read.line_integrals.ravel() == pytest.approx(noisy.measurement.numpy().ravel(), abs=1e-5)
    assert read.weights.ravel() == pytest.approx(noisy.weights.numpy().ravel(), rel=1e-4)


def test_round_trip_is_bit_for_bit_and_the_same_input_gives_the_same_bytes(tmp_path, path, parts):
    arrays, attributes = parts
    arrays["/flat"][0, 0] = np.nan
    first = read_projections(klip_files.write(path, arrays, attributes))
    grid = Geometry((8, 9, 2), (2.0, 2.0, 3.0), (-7.0, -8.0, 1.5))
    first = type(first)(**{**vars(first), "volume_hint": grid, "isocentre_mm": (1.0, -170.5, 3.0)})
    write_projections(once := tmp_path / "once.h5", first, provenance={"made": "for a test"})
    write_projections(again := tmp_path / "again.h5", first, provenance={"made": "for a test"})
    assert once.read_bytes() == again.read_bytes()
    second = read_projections(once)
    assert second.line_integrals.tobytes() == first.line_integrals.tobytes()
    assert second.weights.tobytes() == first.weights.tobytes()
    for name in ("source_mm", "det_center_mm", "det_u", "det_v"):
        assert getattr(second.trajectory, name).tobytes() == getattr(first.trajectory, name).tobytes()
    for name in ("detector", "beam", "mu_water_per_mm", "electronic_sigma", "volume_hint", "isocentre_mm"):
        assert getattr(second, name) == getattr(first, name)
    assert second.description["provenance"]["made"] == "for a test"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.h5", "once.h5", "scan.h5"]


def test_the_file_is_what_the_schema_and_the_documented_sum_say(tmp_path, path, parts):
    """The schema describes a rendering of the HDF5 as JSON; the sum is worked out here from the documentation."""
    arrays, attributes = parts
    scan = read_projections(klip_files.write(path, arrays, attributes))
    written = tmp_path / "w.h5"
    assert write_projections(written, scan) == ()
    schema = json.loads((resources.files("klip_engine") / "data/schemas/klip-projections-1.json").read_text())
    with h5py.File(written) as file:
        rendering = render(file)
        total, names = hashlib.sha256(), []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in sorted(names):
            values = file[name][()]
            total.update(f"/{name} {values.dtype.str} {list(values.shape)}\n".encode() + values.tobytes())
        assert file.attrs["sha256"] == total.hexdigest()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(rendering, schema)
    del rendering["datasets"]["projections"]["attributes"]["quantity"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(rendering, schema)


def render(group: h5py.Group) -> dict:
    plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in group.attrs.items()}
    datasets, groups = {}, {}
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            groups[name] = render(item)
        else:
            own = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in item.attrs.items()}
            datasets[name] = {"dtype": item.dtype.str, "shape": list(item.shape), "attributes": own}
    return {"attributes": plain, "datasets": datasets, "groups": groups}


def test_wrong_files_have_their_own_sentences(path, parts):
    arrays, attributes = parts

    def without(name):
        return {k: v for k, v in arrays.items() if k != name}

    def with_(name, values):
        return {**arrays, name: values}

    nan_free = arrays["/projections"]
    nan = nan_free.copy()
    nan[4, 1, 7] = np.nan
    stuck = arrays["/geometry/source_mm"].copy()
    cases = [
        (arrays, attributes, None, "unit of /projections .* is missing"),
        (arrays, attributes, "photons", "quantity must be"),
        (without("/geometry/det_u"), attributes, "counts", "no geometry: /geometry lacks det_u"),
        (without("/geometry/source_mm"), attributes, "counts", "lacks source_mm"),
        (without("/flat"), attributes, "counts", "neither a flat field nor I0"),
        (with_("/flat", np.ones((3, 3), np.float32)), attributes, "counts", r"/flat .* is \[3, 3\]"),
        (with_("/projections", nan), attributes, "counts", "first in view 4, row 1, column 7"),
        (with_("/projections", nan.astype(float)), attributes, "counts", "float64"),
        (with_("/projections", nan[0]), attributes, "counts", "must be float32"),
        (with_("/geometry/det_u", 2 * arrays["/geometry/det_u"]), attributes, "counts", "unit vectors"),
        (with_("/geometry/det_v", arrays["/geometry/det_u"]), attributes, "counts", "not perpendicular"),
        (with_("/geometry/det_u", arrays["/geometry/det_u"][:-1]), attributes, "counts", "9 views need"),
        (with_("/geometry/source_mm", stuck * np.nan), attributes, "counts", "not numbers"),
        (with_("/weights", -np.ones_like(nan)), attributes, "counts", "negative"),
        (arrays, attributes | {"sha256": "0" * 64}, "counts", "do not match their sha256"),
        (arrays, attributes | {"schema": "klip-projections/2"}, "counts", "klip-projections/2"),
        (arrays, attributes | {"frame": "RAS"}, "counts", "frame"),
        (arrays, attributes | {"beam": "parallel"}, "counts", "geometry is that of a fan beam"),
        (arrays, attributes | {"mu_water_per_mm": "water"}, "counts", "mu_water_per_mm"),
        (arrays, attributes | {"column_pitch_mm": 0.0}, "counts", "above zero"),
        (arrays, attributes | {"column_pitch_mm": 1e-6}, "counts", "column pitch of 1e-06 mm"),
        (arrays, attributes | {"mu_water_per_mm": 0.19}, "counts", "water .* is 0.19 per mm, .* unit"),
        (arrays, attributes | {"electronic_sigma": -5.0}, "counts", "electronic_sigma .* zero or above"),
        (arrays, attributes | {"I0": 1e30}, "counts", "I0.* of more than 1e\\+12"),
        (arrays, attributes, "line_integral", "are these counts or transmissions"),
        (arrays, attributes, "transmission", "below that of air: flat field or I0"),
        (with_("/projections", -nan_free / 200), attributes, "line_integral", "below that of air: their sign"),
        (with_("/weights", np.full_like(nan_free, 3e38)), attributes, "counts", "weights .* inverse variances"),
        (with_("/geometry/source_mm", 1e6 * arrays["/geometry/source_mm"]), attributes, "counts", "a kilometre"),
        (arrays, attributes | {"detector_shape": "cylindrical"}, "counts", "focal_radius_mm .* is missing"),
        (arrays, attributes | {"provenance": "{"}, "counts", "JSON"),
    ]
    for content, attrs, quantity, sentence in cases:
        refused(klip_files.write(path, content, attrs, quantity), sentence)
    still = {k: v if k in ("/flat", "/dark") else v[[0, 1, 1, 3, 4, 5, 6, 7, 8]] for k, v in arrays.items()}
    refused(klip_files.write(path, still, attributes), "views 1 and 2 .* the angles stand still")


def test_a_grid_of_more_voxels_than_a_scan_has_is_refused(path, parts):
    klip_files.write(path, *parts)
    with h5py.File(path, "a") as file:
        hint = file.create_group("volume_hint")
        hint.attrs.update({"size": [10**5, 10**5, 10], "spacing": [1.0] * 3, "origin": [0.0] * 3})
    refused(path, "volume_hint .* voxels")


def test_nan_is_accepted_where_a_weight_of_zero_covers_it(path, parts):
    arrays, attributes = parts
    arrays["/projections"][4, 1, 7] = np.nan
    arrays["/weights"] = np.ones((9, 2, 12), np.float32)
    arrays["/weights"][4, 1, 7] = 0
    read = read_projections(klip_files.write(path, arrays, attributes))
    assert read.line_integrals[4, 1, 7] == 0
    assert read.weights.sum() == read.weights.size - 1


def test_views_in_any_order_and_a_second_look_from_the_same_place_are_fine(path, parts):
    arrays, attributes = parts
    order = [4, 0, 7, 2, 4, 8, 1, 3, 6]
    shuffled = {k: v if k in ("/flat", "/dark") else v[order] for k, v in arrays.items()}
    read = read_projections(klip_files.write(path, shuffled, attributes))
    assert any("1 view was taken from a place of an earlier one" in notice for notice in read.notices)


def test_a_cone_is_read_and_called_one_but_refused_when_asked(path, parts):
    arrays, attributes = parts
    tall = read_projections(klip_files.write(path, arrays, attributes | {"row_pitch_mm": 300.0, "beam": "cone"}))
    assert tall.beam == "cone"
    with pytest.raises(InputError, match="cone beam .* give the volume"):
        refuse_cone(tall)
    fan = read_projections(klip_files.write(path, arrays, attributes))
    refuse_cone(fan)
    refused(klip_files.write(path, arrays, attributes | {"row_pitch_mm": 300.0}), "geometry is that of a cone beam")


def test_truncated(path, parts):
    klip_files.write(path, *parts)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as error:
        read_projections(path)
    assert "truncated" in str(error.value)


def test_links_out_of_the_file_and_virtual_data_are_refused(tmp_path, path, parts):
    arrays, attributes = parts
    klip_files.write(tmp_path / "other.h5", arrays, attributes)
    for name, link in (
        ("projections", h5py.ExternalLink(str(tmp_path / "other.h5"), "/projections")),
        ("flat", h5py.SoftLink("/projections")),
        ("geometry", h5py.ExternalLink(str(tmp_path / "other.h5"), "/geometry")),
    ):
        klip_files.write(path, arrays, attributes)
        with h5py.File(path, "r+") as file:
            del file[name]
            file[name] = link
        refused(path, "is a link to another place")
    klip_files.write(path, arrays, attributes)
    layout = h5py.VirtualLayout((9, 2, 12), np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "projections", shape=(9, 2, 12))
    with h5py.File(path, "r+") as file:
        del file["projections"]
        file.create_virtual_dataset("projections", layout).attrs["quantity"] = "counts"
    refused(path, "keeps its data in other files")


def test_sizes_that_cannot_be_true_are_refused_before_memory_is_asked_for(path, parts):
    arrays, attributes = parts
    for shape, sentence in (
        ((10**6, 10**4, 10**4), "declares .* GiB"),
        ((1000, 1000, 100), "but the file holds 0"),
    ):
        klip_files.write(path, arrays, attributes)
        with h5py.File(path, "r+") as file:
            del file["projections"]
            empty = file.create_dataset("projections", shape, np.float32, chunks=(1, 100, 100))
            empty.attrs["quantity"] = "counts"
        refused(path, sentence)


ATTRIBUTES = [*klip_files.contents()[1], "I0", "isocentre_mm", "sha256", "provenance", "focal_radius_mm"]
ANYTHING = st.one_of(
    st.floats(width=32),
    st.integers(-(2**40), 2**40),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
    st.lists(st.floats(width=32), min_size=1, max_size=5),
    st.binary(min_size=1, max_size=8).map(np.void),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(ATTRIBUTES), value=ANYTHING)
def test_any_attribute_is_understood_or_refused_in_a_sentence(tmp_path, name, value):
    arrays, attributes = klip_files.contents()
    klip_files.write(tmp_path / "fuzzed.h5", arrays, attributes | {name: value})
    read = None
    with contextlib.suppress(InputError):
        read = read_projections(tmp_path / "fuzzed.h5")
    if read is not None:
        assert np.isfinite(read.line_integrals).all()
        assert np.isfinite(read.weights).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.999), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_read_or_refused_but_nothing_else_happens(tmp_path, where, byte, cut):
    path = klip_files.write(tmp_path / "damaged.h5", *klip_files.contents())
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    content[at] = byte
    path.write_bytes(content[:at] if cut else content)
    with contextlib.suppress(InputError):
        assert np.isfinite(read_projections(path).line_integrals).all()
