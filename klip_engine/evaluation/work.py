"""The work folder of a run: what its results depend on, and every finished batch, so that it can be resumed."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from klip_engine.calibration import DRAWN
from klip_engine.errors import UsageError
from klip_engine.evaluation.baselines.base import Baseline
from klip_engine.evaluation.run_settings import RunSettings
from klip_engine.evaluation.study import Study
from klip_engine.files import write_file
from klip_engine.priors import PriorBundle, ReferenceSlices
from klip_engine.settings import SCORING_VERSION, plain_data
from klip_engine.version import __version__

WORK_SCHEMA = "klip-evaluation-work/1"
_STATE = "state.json"

Batch = dict[str, np.ndarray]


def work_state(
    study: Study,
    bundle: PriorBundle,
    settings: RunSettings,
    baselines: Mapping[str, Baseline],
    reference: ReferenceSlices | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that the stored batches depend on, as plain data."""
    learnt = DRAWN if reference is None else reference.digest()
    state = {
        "schema": WORK_SCHEMA,
        "prior": bundle.identity(),
        "slices": study.digest(),
        "detection": settings.detection.to_dict(),
        "scores": {name: asdict(settings.scored_by(name).score) for name in settings.scores},
        "scoring": SCORING_VERSION,
        "engine": __version__,
        "baselines": {name: repr(baseline) for name, baseline in baselines.items()},
        "reference slices": [settings.reference_slices, learnt],
        **facts,
    }
    plain = plain_data(state)
    assert isinstance(plain, dict)
    return plain


def check_work(work: Path, resume: bool) -> None:
    """Raise UsageError when the work folder is not free to be used. Worth asking before anything long begins."""
    if work.exists() and not work.is_dir():
        raise UsageError(f"{work} is a file; move it away: the work folder goes there")
    if not work.exists() or not any(work.iterdir()):
        return
    if not (work / _STATE).is_file():
        raise UsageError(f"{work} holds something else than a run of this program; move it away")
    if not resume:
        raise UsageError(f"{work} holds an earlier run: --resume continues it; or delete that folder to start anew")


def open_work(work: Path, state: dict[str, Any], resume: bool) -> None:
    """Begin in an empty work folder or go on in one of the same state; raises UsageError naming what differs."""
    check_work(work, resume)
    if (work / _STATE).is_file():
        try:
            earlier = json.loads((work / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{work / _STATE} is damaged: delete {work} to start anew") from error
        changed = [key for key in sorted({*state, *earlier}) if state.get(key) != earlier.get(key)]
        if changed:
            raise UsageError(
                f"{work} was made with another value of: {', '.join(changed)}; give the same settings to resume, "
                "or delete that folder to start anew"
            )
        return
    try:
        work.mkdir(parents=True, exist_ok=True)
        write_file(work / _STATE, (json.dumps(state, indent=1) + "\n").encode())
    except OSError as error:
        raise UsageError(f"{work} cannot be written: {error.strerror or error}; choose another --json") from error


def load_batch(path: Path) -> Batch | None:
    """A stored batch; None where there is none. Raises UsageError for a damaged one."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:
        raise UsageError(f"{path} is damaged: delete it, and --resume computes it again") from error


def stored_batch(path: Path) -> Batch:
    """A batch that was kept; raises UsageError when it is gone."""
    batch = load_batch(path)
    if batch is None:
        raise UsageError(f"{path} is gone: --resume computes it again")
    return batch


def save_batch(path: Path, batch: Batch) -> None:
    """Keep a finished batch; complete or not at all."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **batch)  # type: ignore[arg-type]
    write_file(path, stream.getvalue())
