"""The DICOMweb door: a server is asked for new CT series, and they are fetched by WADO-RS (PS3.18 10.4).

Of Orthanc the change feed is followed (`StableSeries`), of other servers QIDO-RS answers are compared from one
question to the next: a series is fetched when its number of instances has stopped to grow. Only CT is fetched, so
results that were sent to the same server do not come back.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pydicom
import requests

from klip_engine.errors import InputError, KlipError
from klip_engine.pacs.config import DicomwebWatch
from klip_engine.pacs.event_log import Events, Level
from klip_engine.pacs.journal import Journal
from klip_engine.pacs.pseudonyms import Pseudonyms
from klip_engine.pacs.sending import read_password
from klip_engine.pacs.spool import Spool
from klip_engine.pacs.stow import web_client
from klip_engine.pacs.watcher import Watcher

_TIMEOUT_S = 60.0
_LONGEST_PAUSE_S = 600.0
_PAGE = 100


@dataclass(frozen=True)
class _Found:
    """A series on the server, and what to remember once it is in the spool."""

    study: str
    series: str
    cursor: str
    value: str


class DicomwebWatcher(Watcher):
    """Watches one server from `start` to `stop`."""

    def __init__(
        self, config: DicomwebWatch, spool: Spool, journal: Journal, pseudonyms: Pseudonyms, events: Events
    ) -> None:
        self._config, self._spool, self._journal = config, spool, journal
        self._pseudonyms, self._events = pseudonyms, events
        password = read_password(config.password_file)
        self._client = web_client(config.url, config.user, password, _TIMEOUT_S)
        self._rest = requests.Session()
        if config.user:
            self._rest.auth = (config.user, password)
        self._counts: dict[str, str] = {}
        super().__init__("dicomweb")

    @property
    def name(self) -> str:
        """For people."""
        return f"watched server {self._config.name}"

    def look(self) -> int:
        """Ask once and fetch what is new; returns how many series. Raises requests.RequestException."""
        fetched = 0
        for found in self._changed() if self._config.kind == "orthanc" else self._grown():
            if self._stop.is_set():
                return fetched
            if found.series:
                self._fetch(found)
                fetched += 1
            if not self._stop.is_set():
                self._journal.set_cursor(found.cursor, found.value)
        return fetched

    def _changed(self) -> Iterator[_Found]:
        """Orthanc's change feed from where it was left; every change moves the cursor, CT series are fetched."""
        cursor = f"changes {self._config.name}"
        done = False
        while not done:
            since = self._journal.cursor(cursor) or "0"
            feed = self._ask(f"/changes?since={since}&limit={_PAGE}")
            for change in feed["Changes"]:
                study = series = ""
                if change["ChangeType"] == "StableSeries":
                    study, series = self._ct_series(change["ID"])
                yield _Found(study, series, cursor, str(change["Seq"]))
            done = feed["Done"]

    def _ct_series(self, identifier: str) -> tuple[str, str]:
        """Study and series UID, empty where it is no CT or is gone meanwhile."""
        try:
            series = self._ask(f"/series/{identifier}")
            study = self._ask(f"/series/{identifier}/study")
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code == requests.codes.not_found:
                return "", ""
            raise
        if series["MainDicomTags"].get("Modality") != "CT":
            return "", ""
        return study["MainDicomTags"]["StudyInstanceUID"], series["MainDicomTags"]["SeriesInstanceUID"]

    def _grown(self) -> Iterator[_Found]:
        """Series of the last days with as many instances as at the last question, and not fetched like that."""
        today = date.today()
        first = today - timedelta(days=self._config.days_back)
        dates = f"{first:%Y%m%d}-{today + timedelta(days=1):%Y%m%d}"
        answers = self._client.search_for_series(
            search_filters={"Modality": "CT", "StudyDate": dates},
            fields=["NumberOfSeriesRelatedInstances"],
            get_remaining=True,
        )
        counts: dict[str, str] = {}
        for answer in answers:
            study, series = (_first(answer, tag) for tag in ("0020000D", "0020000E"))
            count = _first(answer, "00201209") or "?"
            cursor = f"series {self._config.name} {self._pseudonyms.name(series)}"
            counts[cursor] = count
            settled = self._counts.get(cursor) == count
            if study and series and settled and self._journal.cursor(cursor) != count:
                yield _Found(study, series, cursor, count)
        self._counts = counts

    def _fetch(self, found: _Found) -> None:
        """Into the spool, instance by instance. What the spool refuses is logged and left out."""
        name = self._pseudonyms.short
        stored = refused = 0
        for dataset in self._client.iter_series(
            found.study, found.series, media_types=(("application/dicom", "*"),)
        ):
            if self._stop.is_set():
                return
            try:
                self._spool.store([_file(dataset)], f"dicomweb:{self._config.name}")
                stored += 1
            except InputError as error:
                refused += 1
                self._events("instance-refused", Level.WARNING, peer=self._config.name, reason=str(error))
        names = {"study": name(found.study), "series": name(found.series)}
        self._events("series-fetched", Level.INFO, peer=self._config.name, stored=stored, refused=refused, **names)

    def _ask(self, path: str) -> Any:
        answer = self._rest.get(self._config.orthanc_url.rstrip("/") + path, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self.look()
                failures = 0
            except (requests.RequestException, KlipError, ValueError, KeyError, OSError) as error:
                failures += 1  # the reason is told by its kind: messages of the client hold UIDs
                reason = str(error) if isinstance(error, KlipError) else type(error).__name__
                self._events("watch-failed", Level.WARNING, watch=self._config.name, reason=reason)
            self._stop.wait(min(_LONGEST_PAUSE_S, self._config.every_s * 2 ** min(failures, 10)))


def _first(answer: dict[str, Any], tag: str) -> str:
    """The first value of an attribute in DICOM JSON (PS3.18 F.2), as text."""
    values = answer.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _file(dataset: pydicom.Dataset) -> bytes:
    stream = io.BytesIO()
    try:
        pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise InputError("the data set is damaged") from error
    return stream.getvalue()
