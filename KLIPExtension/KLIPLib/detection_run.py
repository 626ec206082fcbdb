"""From a volume of the scene, or a projection file, to results in the scene, through the engine beside it."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from .command import RunSettings, detect_command
from .host import Engine, Host
from .lines import Progress
from .outcome import End, EngineCancelled, EngineError, Outcome, cancelled_sentence
from .run_folder import ERRORS, INPUT, PRINTED, make_run_folder
from .runner import EngineRun


class DetectionRun:
    """One detection. `result` (a ScanResult) or `error` (an EngineError) is there when it is no longer running.

    Its files lie in a folder of its own, which is gone afterwards but for the results themselves.
    """

    def __init__(
        self,
        host: Host,
        engine: Engine,
        source: Any,
        settings: RunSettings,
        *,
        results_folder: Path | None = None,
        progress: Callable[[Progress], None] | None = None,
        warned: Callable[[str], None] | None = None,
        log: Callable[[list[str]], None] | None = None,
        done: Callable[[Any], None] | None = None,
        failed: Callable[[EngineError], None] | None = None,
        over: Callable[[Any], None] | None = None,
    ) -> None:
        """Start. source: a scalar volume node or a path; results_folder: keeps the results, default: the folder
        for temporary files. Exactly one of `done` and `failed` is called, once; before it `over`, with this run.

        Raises InputError when the volume cannot be handed over; nothing is left then.
        """
        self.result: Any = None
        self.error: EngineError | None = None
        self._host, self._done, self._failed, self._over = host, done, failed, over
        self._input_id = source.GetID() if hasattr(source, "GetID") else None
        self._folder = make_run_folder(host.temporary_folder)
        self._out = results_folder / _name() if results_folder else self._folder / "results"
        try:
            path = self._hand_over(source)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._run = EngineRun(
            detect_command(engine.python, path, self._out, settings),
            self._folder,
            engine.environment,
            make_ticker=host.make_ticker,
            ended=self._ended,
            progress=progress,
            warned=warned,
            log=log,
        )

    @property
    def running(self) -> bool:
        """Whether there is neither a result nor an error yet."""
        return self.result is None and self.error is None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._run.elapsed_s

    @property
    def log(self) -> str:
        """What the engine printed, the progress lines apart."""
        return "\n".join(self._run.log)

    def cancel(self) -> None:
        """Stop the engine with all it started; `failed` gets an EngineCancelled when it is gone."""
        self._run.cancel()

    def end_now(self) -> None:
        """Cancel and wait for the end, a moment at most: for the end of the scene or of Slicer."""
        self._run.end_now()

    def wait(self) -> Any:
        """Keep the application responsive until the end. Returns the result; raises the EngineError."""
        while self.running:
            self._host.process_events()
            self._run.advance()
            time.sleep(0.02)
        if self.error is not None:
            raise self.error
        return self.result

    def _hand_over(self, source: Any) -> Path:
        if self._input_id is None:
            return Path(source).expanduser().resolve()
        from .export_input import export_input

        with self._host.busy():
            export_input(source, self._folder / INPUT)
        return self._folder / INPUT

    def _ended(self, outcome: Outcome) -> None:
        try:
            if outcome.end is End.DONE:
                self.result = self._import()
            elif outcome.end is End.CANCELLED:
                self.error = EngineCancelled(cancelled_sentence(), outcome.exit_code, self.log)
            else:
                self.error = EngineError(outcome.message, outcome.exit_code, self.log)
        except Exception as error:
            self.error = EngineError(_unread(error), outcome.exit_code, self.log)
            self.error.__cause__ = error
        finally:
            self._clear()
            if self._over is not None:
                self._over(self)
        if self.result is not None and self._done is not None:
            self._done(self.result)
        elif self.error is not None and self._failed is not None:
            self._failed(self.error)

    def _import(self) -> Any:
        from .results import import_results

        with self._host.busy():
            return import_results(self._host.scene, self._out, self._input_node())

    def _input_node(self) -> Any:
        """The input, if it is still there: it may have been removed during the run."""
        return self._host.scene.GetNodeByID(self._input_id) if self._input_id else None

    def _clear(self) -> None:
        """The patient's voxels and the engine's output go, the results stay."""
        if self.result is None or self._folder not in self._out.parents:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self.result is None:
            shutil.rmtree(self._out, ignore_errors=True)
            return
        for name in (INPUT, PRINTED, ERRORS):
            (self._folder / name).unlink(missing_ok=True)


def _name() -> str:
    return f"klip-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def _unread(error: Exception) -> str:
    from klip_engine.errors import KlipError

    if isinstance(error, KlipError):
        text = str(error)
        return text[:1].upper() + text[1:] + "."
    return _("The results could not be brought into the scene: {kind}: {reason}").format(
        kind=type(error).__name__, reason=error
    )
