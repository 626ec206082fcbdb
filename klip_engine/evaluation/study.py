"""The slices of a study on a prior's working grid: healthy ones, altered ones with one recorded lesion each, and
those as they were before the lesion."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from klip_engine.errors import InputError, UsageError
from klip_engine.evaluation.insertion import Insertion, LesionRecord, insert, lesion_mask
from klip_engine.evaluation.lesions import lesion_kind
from klip_engine.evaluation.slab import one_slab
from klip_engine.evaluation.stacked_slices import present
from klip_engine.evaluation.tissue import Tissues
from klip_engine.io import read_ct
from klip_engine.io.sources import Source, healthy_slices
from klip_engine.stacks import have_neighbours
from klip_engine.volume import AIR_HU, BoolArray, CTVolume, FloatArray
from klip_engine.working_grid import WorkingGrid, WorkingVolume, to_working_grid

HEALTHY = "healthy"
"""The kind of slices without lesion."""
UNALTERED = "unaltered"
"""The kind of slices that lesions were put into, before that, where they are not among the healthy ones."""

_MISSES_ALLOWED = 3
"""Each stands for many sizes and places that were tried."""


@dataclass(frozen=True)
class StudySettings:
    """What a study is made of; with the scans it gives the same study every time.

    kinds: lesion kinds; count: lesions per kind and scan; healthy_slices: per scan, evenly chosen; matched: with
    the original of every altered slice.
    """

    kinds: tuple[str, ...]
    count: int = 10
    healthy_slices: int = 24
    seed: int = 0
    matched: bool = True

    def __post_init__(self) -> None:
        for kind in self.kinds:
            lesion_kind(kind)
        if not self.kinds or len(set(self.kinds)) != len(self.kinds):
            raise UsageError("name at least one lesion kind, each once")
        if self.count < 1 or self.healthy_slices < 1 or self.seed < 0:
            raise UsageError("a study needs at least one lesion per kind and one healthy slice per scan")


@dataclass(frozen=True)
class Case:
    """One slice of the study.

    index: of the working slice in its scan; lesion: what was inserted, if anything; original: number of the same
    slice without the lesion, a healthy or an unaltered one, None where it is not in the study.
    """

    number: int
    kind: str
    patient: str
    file: str
    index: int
    position_mm: float
    lesion: LesionRecord | None = None
    original: int | None = field(default=None, repr=False)
    """Not in the digest, as it follows from the rest."""


@dataclass(frozen=True)
class ScanSummary:
    """What one scan gave: healthy slices, and for each kind how many lesions were placed of how many asked for."""

    file: str
    patient: str
    healthy_slices: int
    placed: dict[str, int]
    asked: int


@dataclass(frozen=True)
class Study:
    """Slices in HU on `grid`: hu, body and lesion are [n, h, w]; cases say what each of them is.

    around: the healthy slices before and after each in its scan, with its lesion, in HU [n, 2, h, w]; NaN where
    there is none within reach (`klip_engine.stacks`).
    """

    hu: FloatArray
    body: BoolArray
    lesion: BoolArray
    around: FloatArray
    cases: tuple[Case, ...]
    scans: tuple[ScanSummary, ...]
    grid: WorkingGrid

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def accompanied(self) -> BoolArray:
        """Which slices have a neighbour, [n]."""
        there = present(self.around)
        return there[:, 0] | there[:, 1]

    def batches(self, size: int) -> tuple[range, ...]:
        """Numbers of the slices, at most `size` together; unaltered ones, which come last, in batches of their own:
        with them or without, the others come to the same floating-point sums."""
        first_unaltered = next((case.number for case in self.cases if case.kind == UNALTERED), len(self))
        parts = (range(first_unaltered), range(first_unaltered, len(self)))
        return tuple(part[first : first + size] for part in parts for first in range(0, len(part), size))

    def digest(self) -> str:
        """A hash of every pixel, mask and record: two studies with the same one are the same."""
        digest = hashlib.sha256()
        for array in (self.hu, self.body, self.lesion, self.around):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(repr(self.cases).encode())
        return digest.hexdigest()


def collect_study(
    scans: Sequence[Source],
    grid: WorkingGrid,
    settings: StudySettings,
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[], None] | None = None,
) -> Study:
    """Read the scans, choose healthy slices and insert the lesions.

    Each altered slice comes from its own copy of the scan with one lesion: it is the healthy slice on which the
    lesion's mask is largest. What is drawn for a scan and a kind depends on the seed, the number of the scan and
    the kind alone. A scan in which a kind fits nowhere is recorded in `Study.scans`. Originals of altered slices
    that are not among the healthy ones follow at the end, each once.
    check() is called between lesions and may raise. Raises InputError for a scan that cannot be read or holds no
    healthy slice with body, and when not one lesion of any kind could be placed.
    """
    slices: list[_Slice] = []
    cases: list[Case] = []
    originals = _Originals()
    summaries: list[ScanSummary] = []
    total = len(scans) * (1 + len(settings.kinds))
    for number, scan in enumerate(scans):
        site = _Site.of(scan, grid)
        chosen = healthy_slices(scan, site.working, settings.healthy_slices).tolist()
        for k in chosen:
            originals.known[number, k] = len(cases)
            slices.append(site.unaltered(k))
            cases.append(site.case(len(cases), HEALTHY, k))
        if progress:
            progress(number * (1 + len(settings.kinds)) + 1, total)
        placed = {}
        for step, kind in enumerate(settings.kinds, start=2):
            found = site.altered(kind, settings, number, check or (lambda: None))
            for k, altered, record in found:
                if settings.matched:
                    originals.want(len(cases), (number, k), site)
                slices.append(altered)
                cases.append(site.case(len(cases), kind, k, record))
            placed[kind] = len(found)
            if progress:
                progress(number * (1 + len(settings.kinds)) + step, total)
        summaries.append(ScanSummary(scan.path.name, scan.patient, len(chosen), placed, settings.count))
    if all(case.kind == HEALTHY for case in cases):
        raise InputError(
            f"none of these lesions fits anywhere in these scans: {', '.join(settings.kinds)}; "
            "take other kinds or other scans"
        )
    originals.append_to(slices, cases)
    hu, body, lesion, around = (np.stack(part) for part in zip(*slices, strict=True))
    return Study(hu, body, lesion, around, tuple(cases), tuple(summaries), grid)


_Slice = tuple[FloatArray, BoolArray, BoolArray, FloatArray]
"""HU, body and lesion, [h, w] each, and the slices around it, [2, h, w]."""


@dataclass
class _Originals:
    """Where the slices before alteration are, by (number of the scan, working slice).

    known: numbers of those in the study; wanted: the altered slices that need one; missing: those to append.
    """

    known: dict[tuple[int, int], int] = field(default_factory=dict)
    wanted: dict[int, tuple[int, int]] = field(default_factory=dict)
    missing: dict[tuple[int, int], tuple[_Slice, Case]] = field(default_factory=dict)

    def want(self, altered: int, key: tuple[int, int], site: _Site) -> None:
        """The altered slice of this number needs the original at `key`, which lies in `site`."""
        self.wanted[altered] = key
        if key not in self.known and key not in self.missing:
            self.missing[key] = (site.unaltered(key[1]), site.case(-1, UNALTERED, key[1]))

    def append_to(self, slices: list[_Slice], cases: list[Case]) -> None:
        """Append what is missing, and tell every altered case where its original is."""
        for key, (one, case) in self.missing.items():
            self.known[key] = len(cases)
            slices.append(one)
            cases.append(replace(case, number=len(cases)))
        for altered, key in self.wanted.items():
            cases[altered] = replace(cases[altered], original=self.known[key])


@dataclass(frozen=True)
class _Site:
    """One scan, on its own grid and on the working grid, the working slices that are healthy and their tissues."""

    scan: Source
    volume: CTVolume
    working: WorkingVolume
    healthy: list[int]
    grid: WorkingGrid
    tissues: Tissues

    @staticmethod
    def of(scan: Source, grid: WorkingGrid) -> _Site:
        volume = read_ct(scan.path).volume
        try:
            working = to_working_grid(volume, grid)
        except InputError as error:
            raise InputError(f"{scan.path}: {error}") from error
        healthy = healthy_slices(scan, working).tolist()
        if not healthy:
            raise InputError(f"{scan.path} holds no healthy slice with a body: check its ranges of slices")
        allowed = None
        if working.source_slices is not None:
            allowed = np.zeros(len(volume.hu), dtype=bool)
            for k in healthy:
                first, last = working.source_slices[k]
                allowed[first:last] = True
        return _Site(scan, volume, working, healthy, grid, Tissues(volume, allowed))

    def unaltered(self, k: int) -> _Slice:
        """Working slice k as it is."""
        body, hu = self.working.body[k], self.working.hu
        return hu[k], body, np.zeros_like(body), self._around(k, lambda one: hu[one])

    def _around(self, k: int, seen: Callable[[int], FloatArray]) -> FloatArray:
        around = np.full((2, *self.grid.shape), np.nan, dtype=np.float32)
        together = have_neighbours(len(self.working.hu), self.working.geometry.spacing[2])
        for side, one in enumerate((k - 1, k + 1)):
            if together and one in self.healthy:
                around[side] = seen(one)
        return around

    def case(self, number: int, kind: str, k: int, lesion: LesionRecord | None = None) -> Case:
        height = float(self.working.geometry.to_lps((0, 0, k))[2])
        return Case(number, kind, self.scan.patient, self.scan.path.name, int(k), round(height, 3), lesion)

    def altered(
        self, kind: str, settings: StudySettings, scan_number: int, check: Callable[[], None]
    ) -> list[tuple[int, _Slice, LesionRecord]]:
        """Index of the working slice, what is seen there and the record, for every lesion that found a place."""
        key = hashlib.sha256(f"{settings.seed}/{scan_number}/{kind}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
        room = lesion_kind(kind).room(self.tissues)
        found: list[tuple[int, _Slice, LesionRecord]] = []
        if not room.mask.any():
            return found
        misses = 0
        for _ in range(2 * settings.count):  # a lesion at the border of the field of view may not be seen
            check()
            try:
                inserted = insert(self.volume, kind, rng, tissue=room)
            except InputError:
                misses += 1
                if misses == _MISSES_ALLOWED:
                    break
                continue
            seen = self._seen(inserted)
            if seen is not None:
                found.append((*seen, inserted.record))
            if len(found) == settings.count:
                break
        return found

    def _seen(self, inserted: Insertion) -> tuple[int, _Slice] | None:
        mask = lesion_mask(inserted.record, self.working.geometry) & self.working.body
        areas = mask.sum(axis=(1, 2))
        k = max(self.healthy, key=lambda one: int(areas[one]))
        if not areas[k]:
            return None

        def seen(one: int) -> FloatArray:
            return self._altered_slice(inserted.volume, one)

        return k, (seen(k), self.working.body[k], mask[k], self._around(k, seen))

    def _altered_slice(self, altered: CTVolume, k: int) -> FloatArray:
        """Working slice k of the altered scan, exactly where it lies in the healthy one."""
        working = self.working
        table = ~working.body[k] & (working.hu[k] == AIR_HU)
        hu = None
        if working.source_slices is not None:
            hu = one_slab(altered, working.source_slices[k], working.geometry, self.grid)
        if hu is None:
            hu = to_working_grid(altered, self.grid, mask_table=False).hu[k]
        return np.where(table, np.float32(AIR_HU), hu)
