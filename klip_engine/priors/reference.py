"""Real healthy slices kept beside a prior: what null distributions for new settings are measured on.

NAME/reference/slices.safetensors   scan int16 [n], body and shown: bits of [n, h * w] in uint8, hu int16 of the
                                    pixels shown, in this order (the rest is air; older files: of all, [n, h, w]),
                                    stack int16 [n] (`klip_engine.stacks`; without it no slice has a neighbour),
                                    unseen:SCORE float64 [2], one for each score that is in `ReferenceSlices.unseen`
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from klip_engine.errors import PriorError
from klip_engine.files import write_file
from klip_engine.stacks import StackArray, between_neighbours, standing_alone
from klip_engine.volume import AIR_HU, BoolArray, FloatArray

_FILE = Path("reference") / "slices.safetensors"
_UNSEEN = "unseen:"


@dataclass(frozen=True)
class ReferenceSlices:
    """Healthy slices on a prior's grid: hu [n, h, w], body [n, h, w], and for each the number of its scan and of
    its stack of neighbouring slices, [n].

    unseen: where the prior was trained on these patients, how slices of patients it has not seen score beside
    them, by `klip_engine.scoring.null.NullDistribution.score_name`: level and spread (its `raised`).
    """

    hu: FloatArray
    body: BoolArray
    scan: npt.NDArray[np.int64]
    stack: StackArray
    unseen: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.hu)

    def evenly(self, count: int) -> ReferenceSlices:
        """At most `count` of them, evenly spread; fewer than all are each on its own."""
        if count >= len(self):
            return self
        chosen = self._only(np.linspace(0, len(self) - 1, count).round().astype(int))
        return replace(chosen, stack=np.arange(count))

    def whole_stacks(self, count: int) -> ReferenceSlices:
        """At most `count` of them, evenly spread, whole stacks together; each on its own where so few hold none."""
        if count >= len(self):
            return self
        stacks, sizes = np.unique(self.stack, return_counts=True)
        for kept in range(min(count, len(stacks)), 0, -1):
            pick = np.linspace(0, len(stacks) - 1, kept).round().astype(int)
            if sizes[pick].sum() <= count:
                return self._only(np.isin(self.stack, stacks[pick]))
        return self.evenly(count)

    def stacked(self) -> ReferenceSlices:
        """Those with neighbours on both sides, and these; none where there are none."""
        return self._only(np.isin(self.stack, self.stack[between_neighbours(self.stack)]))

    def _only(self, pick: BoolArray | npt.NDArray[np.int64]) -> ReferenceSlices:
        return replace(self, hu=self.hu[pick], body=self.body[pick], scan=self.scan[pick], stack=self.stack[pick])

    def digest(self) -> str:
        """sha256 of what is kept of them."""
        return hashlib.sha256(b"".join(array.tobytes() for array in _arrays(self).values())).hexdigest()

    def describe(self, neighbours: bool = False) -> str:
        """What a null distribution made of them rests on; neighbours: of those that are looked at with theirs."""

        def described(counted: BoolArray) -> str:
            return f"{counted.sum()} slices of {len(np.unique(self.scan[counted]))} healthy scans"

        if not neighbours:
            return described(np.ones(len(self), dtype=bool))
        alone = standing_alone(self.stack)
        lone = f" and {alone.sum()} that stand alone" if alone.any() else ""
        return described(between_neighbours(self.stack)) + lone


def save_reference(folder: Path, slices: ReferenceSlices) -> None:
    """Keep the slices in a bundle; complete or not at all. They are pictures of patients: no names are kept."""
    write_file(folder / _FILE, save(_arrays(slices)))


def whole_hu(hu: FloatArray) -> FloatArray:
    """HU as they are kept, rounded and within 12 bits."""
    return hu.round().clip(-1024, 3071)


def _mask(bits: npt.NDArray[np.uint8], shape: tuple[int, int]) -> BoolArray:
    return np.unpackbits(bits, axis=1, count=shape[0] * shape[1]).reshape(-1, *shape) > 0


def _arrays(slices: ReferenceSlices) -> dict[str, npt.NDArray[Any]]:
    hu = whole_hu(slices.hu).astype(np.int16)
    shown = hu != AIR_HU
    return {
        "hu": hu[shown],
        "shown": np.packbits(shown.reshape(len(slices), -1), axis=1),
        "body": np.packbits(slices.body.reshape(len(slices), -1), axis=1),
        "scan": slices.scan.astype(np.int16),
        "stack": slices.stack.astype(np.int16),
        **{_UNSEEN + score: np.array(raised, np.float64) for score, raised in sorted(slices.unseen.items())},
    }


def _unseen(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, tuple[float, float]]:
    """`ReferenceSlices.unseen`; raises ValueError for what is no level and spread."""
    unseen = {}
    for name in sorted(arrays):
        if name.startswith(_UNSEEN):
            level, spread = (float(value) for value in arrays[name])
            if not (0 < level < np.inf and 0 < spread < np.inf):
                raise ValueError("level and spread of patients unseen are numbers above 0")
            unseen[name.removeprefix(_UNSEEN)] = (level, spread)
    return unseen


def load_reference(folder: Path, shape: tuple[int, int]) -> ReferenceSlices | None:
    """The slices kept in a bundle, None where there are none; raises PriorError when they are damaged."""
    path = folder / _FILE
    if not path.is_file():
        return None
    try:
        arrays = load_file(path)
        scan = arrays["scan"]
        if arrays["body"].shape != (len(scan), -(-shape[0] * shape[1] // 8)) or not len(scan):
            raise ValueError(f"its slices do not fit the prior's grid {shape}")
        body, hu = _mask(arrays["body"], shape), arrays["hu"]
        if hu.ndim == 1:
            hu = np.full(body.shape, AIR_HU, dtype=np.int16)
            hu[_mask(arrays["shown"], shape)] = arrays["hu"]
        if hu.shape != body.shape:
            raise ValueError(f"its slices {hu.shape} do not fit the prior's grid {shape}")
        stack = arrays.get("stack", np.arange(len(scan)))
        if stack.shape != scan.shape or (np.diff(stack) < 0).any():
            raise ValueError("its stacks do not belong to its slices")
        numbers = scan.astype(np.int64), stack.astype(np.int64)
        return ReferenceSlices(hu.astype(np.float32), body, *numbers, _unseen(arrays))
    except (OSError, KeyError, ValueError, IndexError, SafetensorError) as error:
        raise PriorError(f"the reference slices {path} are damaged: {error}; calibrate the prior again") from error
