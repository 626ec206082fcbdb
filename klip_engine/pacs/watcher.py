"""What all watchers are: a thread that looks again and again until it is stopped."""

from __future__ import annotations

import threading


class Watcher:
    """Runs `_run` in a thread of its own from `start` to `stop`; `_run` ends soon after `_stop` is set."""

    def __init__(self, thread_name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether its thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is being taken is taken to its end, or again at the next start."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        raise NotImplementedError
