"""Snapshots of EDM and PaDIS: weights, names and arguments come out; wrong ones are refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from klip_engine.errors import PriorError
from klip_engine.priors.edm_pickle import read_snapshot
from klip_engine.priors.song_unet import SongUNet
from tests.priors.snapshots import SMALL_NETWORK, Persistent, persistence, randomise, write_snapshot


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_snapshot_gives_its_network(tmp_path: Path, protocol: int) -> None:
    network = randomise(SongUNet(**SMALL_NETWORK))
    file = tmp_path / "network-snapshot-000001.pkl"
    outer = {"img_resolution": 32, "img_channels": 3, "out_channels": 1, "sigma_data": 0.5, "use_fp16": False}
    write_snapshot(file, network, SMALL_NETWORK, outer, "Patch_EDMPrecond", protocol)
    snapshot = read_snapshot(file)
    assert snapshot.preconditioning == "Patch_EDMPrecond"
    assert snapshot.preconditioning_arguments == outer
    assert snapshot.network_arguments == SMALL_NETWORK
    published = network.state_dict()
    assert list(snapshot.weights) == list(published)
    assert all(torch.equal(snapshot.weights[name], value) for name, value in published.items())


def write(path: Path, ema: Any) -> Path:
    path.write_bytes(pickle.dumps({"ema": ema}))
    return path


def test_wrong_snapshots_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "x.pkl"
    with pytest.raises(PriorError, match=r"x\.pkl cannot be read"):
        read_snapshot(file)
    with pytest.raises(PriorError, match=r"no network 'ema'"):
        read_snapshot(write(file, 3))
    with persistence() as reconstruct:
        write(file, Persistent(nn.Identity(), "VPPrecond", reconstruct))
    with pytest.raises(PriorError, match=r"is a 'VPPrecond'; known are EDMPrecond"):
        read_snapshot(file)
    with persistence() as reconstruct:
        write(file, Persistent(nn.Identity(), "EDMPrecond", reconstruct))
    with pytest.raises(PriorError, match=r"only SongUNet is known"):
        read_snapshot(file)
    write_snapshot(file, nn.Identity(), {"img_resolution": torch.ones(1)}, {})
    with pytest.raises(PriorError, match=r"argument 'img_resolution' is not plain data"):
        read_snapshot(file)


def test_layers_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    network = nn.ModuleDict({"a": nn.ModuleDict()})
    inner = network["a"]
    assert isinstance(inner, nn.ModuleDict)
    inner.__dict__["_modules"] = {"again": inner}
    with persistence() as reconstruct:
        outer = nn.Identity()
        state = Persistent(outer, "SongUNet", reconstruct)
        function, (meta,) = state.__reduce__()
        meta["state"]["_modules"] = {"a": inner}
        module = Persistent(nn.Identity(), "EDMPrecond", reconstruct)
        outer_function, (outer_meta,) = module.__reduce__()

        class Reduced:
            def __init__(self, *parts: Any) -> None:
                self.parts = parts

            def __reduce__(self) -> Any:
                return self.parts

        outer_meta["state"]["_modules"] = {"model": Reduced(function, (meta,))}
        file = write(tmp_path / "x.pkl", Reduced(outer_function, (outer_meta,)))
    with pytest.raises(PriorError, match=r"contain themselves|not a layer"):
        read_snapshot(file)
