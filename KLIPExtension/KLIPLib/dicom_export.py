"""Results of a volume from the DICOM database go back there as a segmentation, through the engine's own writer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from .command import export_command
from .host import Engine, Host
from .marking import FALSE_ALARMS
from .outcome import End, EngineCancelled, EngineError, Outcome, cancelled_sentence
from .result_nodes import DOCUMENT, RUN_TO_LOCAL, document_hash
from .run_folder import make_run_folder
from .runner import EngineRun

INSTANCES = "DICOM.instanceUIDs"
"""Attribute of volume nodes that Slicer loaded from its DICOM database: SOP Instance UIDs, separated by blanks."""


def why_no_export(result: Any) -> str:
    """Why a result cannot be exported; empty when it can."""
    if result is None:
        return _("There is no result yet.")
    if result.input_node is None or not result.input_node.GetAttribute(INSTANCES):
        return _("Only results of a volume that was loaded from the DICOM database can be exported.")
    if not _is_where_the_series_is(result):
        return _(
            "The volume was below a transform during the run, so its findings do not lie where its DICOM series "
            "does. Take the volume out of the transform and run the detection again."
        )
    if not (result.folder / "findings.json").is_file():
        return _("The folder with the results is gone; run the detection again.")
    return ""


def _is_where_the_series_is(result: Any) -> bool:
    """Whether the world of the run is that of the series: no transform lay between them."""
    return bool(np.allclose(json.loads(result.regions.GetAttribute(RUN_TO_LOCAL)), np.eye(4), atol=1e-3))


class DicomExport:
    """One export. `added` is true once the objects are in the DICOM database, else `error` says why not."""

    def __init__(
        self,
        host: Host,
        engine: Engine,
        result: Any,
        *,
        done: Callable[[], None] | None = None,
        failed: Callable[[EngineError], None] | None = None,
        log: Callable[[list[str]], None] | None = None,
        over: Callable[[Any], None] | None = None,
    ) -> None:
        """Start. Exactly one of `done` and `failed` is called, before it `over`, with this export.

        Raises RuntimeError when the files are not known.
        """
        self.added = False
        self.error: EngineError | None = None
        self._host, self._done, self._failed, self._over = host, done, failed, over
        reason = why_no_export(result)
        if reason:
            raise RuntimeError(reason)
        if result.regions.GetAttribute(DOCUMENT) not in (None, document_hash(result.folder)):
            raise RuntimeError(_("The folder holds the results of another run by now; run the detection again."))
        files = host.dicom_files(result.input_node.GetAttribute(INSTANCES).split())
        if not files:
            raise RuntimeError(_("The DICOM database does not know the files of this volume any more."))
        rate = float(result.regions.GetAttribute(FALSE_ALARMS))  # what is seen, not what the run was told
        self._folder = make_run_folder(host.temporary_folder, export=True)
        sources = self._folder / "sources.txt"
        sources.write_text("\n".join(files) + "\n", encoding="utf-8")
        self._run = EngineRun(
            export_command(engine.python, result.folder, sources, self._folder / "dicom", rate),
            self._folder,
            engine.environment,
            make_ticker=host.make_ticker,
            ended=self._ended,
            log=log,
        )

    @property
    def running(self) -> bool:
        """Whether it is still under way."""
        return not self.added and self.error is None

    def cancel(self) -> None:
        """Stop it; nothing is added."""
        self._run.cancel()

    def end_now(self) -> None:
        """Stop it and wait until it is gone."""
        self._run.end_now()

    def _ended(self, outcome: Outcome) -> None:
        log = "\n".join(self._run.log)
        try:
            if outcome.end is End.DONE:
                self._host.add_dicom(self._folder / "dicom")
                self.added = True
            elif outcome.end is End.CANCELLED:
                self.error = EngineCancelled(cancelled_sentence(), outcome.exit_code, log)
            else:
                self.error = EngineError(outcome.message, outcome.exit_code, log)
        except Exception as error:
            sentence = _("The DICOM database did not take the files: {reason}").format(reason=error)
            self.error = EngineError(sentence, None, log)
            self.error.__cause__ = error
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._over is not None:
                self._over(self)
        if self.error is not None and self._failed is not None:
            self._failed(self.error)
        elif self.added and self._done is not None:
            self._done()
