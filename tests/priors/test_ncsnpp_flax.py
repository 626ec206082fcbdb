"""NCSN++ checkpoints of flax: every format gives the arrays back, the network answers as the published one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from klip_engine.errors import PriorError
from klip_engine.priors.flax_checkpoint import Array, read_checkpoint
from klip_engine.priors.ncsnpp import NCSNpp
from klip_engine.priors.orbax_ncsnpp import CONFIGURATIONS, averaged_parameters, torch_weights

TWO_LEVELS: dict[str, Any] = {"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (8,)}
THREE_LEVELS: dict[str, Any] = {"nf": 8, "ch_mult": (1, 1, 2), "num_res_blocks": 1, "attn_resolutions": (16,)}


def flax_parameters(network: NCSNpp) -> dict[str, Array]:
    """Weights by formula for a network, named and laid out as flax does; numbered in alphabetical order."""
    shapes = {}
    for name, value in network.state_dict().items():
        *layers, kind = name.removeprefix("layers.").split(".")
        shape = tuple(value.shape)
        if layers[-1].startswith("NIN"):
            kind, shape = {"weight": "W", "bias": "b"}[kind], shape[::-1]
        elif kind == "weight":
            kind = "scale" if len(shape) == 1 else "kernel"
            shape = (shape[2], shape[3], shape[1], shape[0]) if len(shape) == 4 else shape[::-1]
        shapes["/".join((*layers, kind))] = shape
    return {
        name: (0.3 * np.sin(1.7 * np.arange(np.prod(shapes[name])) + number))
        .astype(np.float32)
        .reshape(shapes[name])
        for number, name in enumerate(sorted(shapes))
    }


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *folders, name = path.split("/")
        here = tree
        for folder in folders:
            here = here.setdefault(folder, {})
        here[name] = value
    return tree


@pytest.mark.parametrize(
    ("options", "number", "published"),
    [
        (
            TWO_LEVELS,
            161,
            [[-0.133494, 0.260588, 0.232727, 0.167941], [-0.010504, 0.020383, 0.018864, 0.01234]],
        ),
        (
            THREE_LEVELS,
            225,
            [[0.446075, -1.643766, -1.41325, -0.061102], [0.035878, -0.128196, -0.109923, -0.004432]],
        ),
    ],
)
def test_scores_are_those_of_the_published_network(
    options: dict[str, Any], number: int, published: list[list[float]]
) -> None:
    """Four pixels of two images, sigma 0.7 and 9, of what score_inverse_problems gives with these weights."""
    network = NCSNpp(16, **options).eval()
    parameters = flax_parameters(network)
    assert len(parameters) == number
    network.load_state_dict(torch_weights(parameters))
    x = (0.5 + 0.5 * np.sin(0.37 * np.arange(2 * 16 * 16))).astype(np.float32).reshape(2, 1, 16, 16)
    sigma = torch.tensor([0.7, 9.0])
    with torch.no_grad():
        score = network(torch.from_numpy(x), sigma.log()) / sigma[:, None, None, None]
    np.testing.assert_allclose(score[:, 0, [0, 3, 7, 15], [0, 12, 11, 15]], published, atol=1e-5)


@pytest.mark.parametrize(("name", "levels"), [("ct2d_320", 7), ("ldct_512", 7), ("ct2d", 6)])
def test_published_configurations_build(name: str, levels: int) -> None:
    config = CONFIGURATIONS[name]
    with torch.device("meta"):
        network = NCSNpp(**config.network_arguments())
    assert len(network.sizes) == levels
    assert config.sigma_min == 0.01


def msgpack_checkpoint(path: Path, tree: dict[str, Any], chunk: int | None = None) -> Path:
    """A checkpoint as flax.serialization writes it."""
    msgpack = pytest.importorskip("msgpack")

    def pack(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
            raw = msgpack.packb((array.shape, array.dtype.name, array.tobytes("C")), use_bin_type=True)
            return msgpack.ExtType(1 if isinstance(value, np.ndarray) else 3, raw)
        if isinstance(value, complex):
            return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))
        raise TypeError(type(value))

    def chunked(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: chunked(part) for name, part in value.items()}
        if chunk is None or not isinstance(value, np.ndarray) or value.size <= chunk:
            return value
        parts = np.split(value.ravel(), range(chunk, value.size, chunk))
        return {
            "__msgpack_chunked_array__": True,
            "shape": {str(n): size for n, size in enumerate(value.shape)},
            "chunks": {str(n): part for n, part in enumerate(parts)},
        }

    path.write_bytes(msgpack.packb(chunked(tree), default=pack, strict_types=True))
    return path


def orbax_checkpoint(folder: Path, flat: dict[str, Array], kind: str) -> Path:
    """A checkpoint as Orbax writes it: zarr arrays, each in a folder of its own or all in one OCDBT store."""
    tensorstore = pytest.importorskip("tensorstore")
    base = {"driver": "file", "path": f"{folder}/"}
    store = base if kind == "zarr" else {"driver": "ocdbt", "base": base}
    driver = "zarr3" if kind == "zarr3" else "zarr"
    for path, array in flat.items():
        spec = {
            "driver": driver,
            "kvstore": store | {"path": f"{store.get('path', '')}{path.replace('/', '.')}/"},
            "dtype": str(array.dtype),
            "create": True,
        }
        tensorstore.open(spec | {"schema": {"domain": {"shape": list(array.shape)}}}).result().write(array).result()
    tree = {
        str(tuple(path.split("/"))): {"key_metadata": [{"key": key, "key_type": 2} for key in path.split("/")]}
        for path in flat
    }
    metadata = {"tree_metadata": tree, "use_zarr3": kind == "zarr3"}
    (folder / "_METADATA").write_text(json.dumps(metadata))
    return folder


TREE = {
    "params_ema/Conv_0/kernel": np.arange(18, dtype=np.float32).reshape(3, 3, 1, 2),
    "params_ema/Conv_0/bias": np.array([0.5, -1.0], dtype=np.float32),
    "params_ema/a.b/W": np.eye(3, dtype=np.float16),
    "optimizer/target/Conv_0/bias": np.zeros(2, dtype=np.float32),
    "step": np.array(7, dtype=np.int32),
}


@pytest.mark.parametrize("kind", ["msgpack", "msgpack in chunks", "zarr", "ocdbt", "zarr3"])
def test_every_format_gives_the_arrays_back(tmp_path: Path, kind: str) -> None:
    if kind.startswith("msgpack"):
        path = msgpack_checkpoint(tmp_path / "checkpoint_7", nested(TREE), 4 if "chunks" in kind else None)
    else:
        path = orbax_checkpoint(tmp_path / "7" / "default", TREE, kind).parent.parent
    arrays = read_checkpoint(path)
    assert set(arrays) == set(TREE)
    for name, array in TREE.items():
        np.testing.assert_array_equal(arrays[name], array)
    averaged = averaged_parameters(arrays)
    assert set(averaged) == {"Conv_0/kernel", "Conv_0/bias", "a.b/W"}


def test_numbers_and_scalars_are_read_and_text_is_left_out(tmp_path: Path) -> None:
    tree = {"lr": 2e-4, "step": np.int64(3), "z": 1 + 2j, "name": "x", "empty": {}, "a": np.ones(2)}
    arrays = read_checkpoint(msgpack_checkpoint(tmp_path / "c", tree))
    assert {name: float(value.ravel()[0]) for name, value in arrays.items()} == {"lr": 2e-4, "step": 3, "a": 1}


def test_other_things_are_refused_by_name(tmp_path: Path) -> None:
    msgpack = pytest.importorskip("msgpack")
    with pytest.raises(PriorError, match=r"no such checkpoint"):
        read_checkpoint(tmp_path / "none")
    file = tmp_path / "c"
    deep: Any = 1
    for _ in range(200):
        deep = {"a": deep}
    for content, sentence in (
        (b"\xc1", r"damaged or no flax checkpoint"),
        (msgpack.packb({"a": msgpack.ExtType(9, b"x")}), r"extension type 9"),
        (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((2,), "object", b"x" * 16)))}), r"not numbers"),
        (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((2**60,), "float32", b"x" * 16)))}), r"damaged"),
        (msgpack.packb({"__msgpack_chunked_array__": True, "shape": {"0": 5}, "chunks": {"0": 1}}), r"chunks"),
        (msgpack.packb({"a": "text"}), r"holds no arrays"),
        (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((2,), 5, b"x" * 16)))}), r"damaged"),
        (
            msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((2,), "f4,(", b"x" * 16)))}),
            r"'f4,\(' are not numbers",
        ),
        (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((2,), "(2)f4", b"x" * 16)))}), r"not numbers"),
        (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb((None, "float32", 3)))}), r"damaged"),
        (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(1))}), r"damaged"),
        (msgpack.packb({"__msgpack_chunked_array__": True, "shape": 5, "chunks": 1}), r"chunks"),
        (msgpack.packb(deep), r"too deep"),
    ):
        file.write_bytes(content)
        with pytest.raises(PriorError, match=sentence):
            read_checkpoint(file)
    for step in ("steps/1", "steps/2"):
        (tmp_path / step).mkdir(parents=True)
    with pytest.raises(PriorError, match=r"several steps or items are \(1, 2\)"):
        read_checkpoint(tmp_path / "steps")
    pytest.importorskip("tensorstore")
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "_METADATA").write_text("{")
    with pytest.raises(PriorError, match=r"_METADATA is not JSON"):
        read_checkpoint(tmp_path / "o")
    (tmp_path / "o" / "_METADATA").write_text("{}")
    (tmp_path / "o" / "manifest.ocdbt").write_bytes(b"nonsense")
    with pytest.raises(PriorError, match=r"damaged"):
        read_checkpoint(tmp_path / "o")


def test_the_average_is_found_or_missed_by_name() -> None:
    kernel = np.zeros((3, 3, 1, 2))
    assert averaged_parameters({"0/params_ema/params/Conv_0/kernel": kernel}) == {"Conv_0/kernel": kernel}
    assert list(averaged_parameters({"params/Conv_0/kernel": kernel})) == ["Conv_0/kernel"]
    with pytest.raises(PriorError, match=r"no 'params_ema'"):
        averaged_parameters({"optimizer/x": kernel})


@pytest.mark.parametrize(
    "metadata", ['{"tree_metadata": []}', '{"tree_metadata": {"a": {}}}', '{"tree_metadata": {"a": 1}}']
)
def test_odd_metadata_of_orbax_is_damage(tmp_path: Path, metadata: str) -> None:
    orbax_checkpoint(tmp_path / "o", {"a": np.ones((2, 2), np.float32)}, "zarr")
    (tmp_path / "o" / "_METADATA").write_text(metadata)
    with pytest.raises(PriorError, match=r"it is damaged"):
        read_checkpoint(tmp_path / "o")


@pytest.mark.parametrize("what", ["shape", "chunks"])
def test_an_orbax_folder_that_states_far_more_than_it_holds_is_not_read(tmp_path: Path, what: str) -> None:
    """zarr fills in what is missing: two hundred bytes would become terabytes."""
    orbax_checkpoint(tmp_path / "o", {"a": np.ones((2, 2), np.float32)}, "zarr")
    description = json.loads((tmp_path / "o" / "a" / ".zarray").read_text())
    description[what] = [10**6, 10**6]
    (tmp_path / "o" / "a" / ".zarray").write_text(json.dumps(description))
    with pytest.raises(PriorError, match=r"would need 3,814,697 MiB, and its files have 0\.00. MiB: refused"):
        read_checkpoint(tmp_path / "o")
