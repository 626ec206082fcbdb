"""Sends objects by STOW-RS (PS3.18 10.5), one request for each."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session, create_session_from_user_pass
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread

from klip_engine.pacs.config import Destination
from klip_engine.pacs.sending import Answer, Verdict, read_password

_UNKNOWN_KIND = (0x0122, 0xA800)
"""Failure reasons of PS3.18 table 10.5.3-1 that stand for a SOP class the server does not take."""
_FOR_GOOD = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
"""Not 401, 403 and 404: those come from settings, which people mend."""


class StowSender:
    """A STOW-RS user agent for one destination."""

    def __init__(self, destination: Destination) -> None:
        password = read_password(destination.password_file)
        self._client = web_client(destination.url, destination.user, password, destination.timeout_s)

    def __call__(self, files: Sequence[Path]) -> Iterator[Answer]:
        """Send files; ends after an AWAY."""
        for file in files:
            answer = self._send(file)
            yield answer
            if answer.verdict is Verdict.AWAY:
                return

    def echo(self) -> Answer:
        """A QIDO-RS question that any server answers."""
        try:
            self._client.search_for_studies(limit=1)
        except requests.HTTPError as error:
            return Answer(Verdict.LATER, _status(error))
        except (requests.RequestException, ValueError) as error:
            return Answer(Verdict.AWAY, f"the server cannot be reached ({type(error).__name__})")
        return Answer(Verdict.ARRIVED)

    def _send(self, file: Path) -> Answer:
        try:
            dataset = dcmread(file)
        except (OSError, InvalidDicomError):
            return Answer(Verdict.REFUSED, "the result file is damaged")
        try:
            answer = self._client.store_instances([dataset])
        except requests.HTTPError as error:
            return _http_answer(error)
        except (requests.RequestException, OSError) as error:
            return Answer(Verdict.AWAY, f"the server cannot be reached ({type(error).__name__})")
        except (ValueError, KeyError, TypeError):
            return Answer(Verdict.LATER, "the server's answer is no STOW-RS response")
        failed = answer.get("FailedSOPSequence")
        if not failed:
            return Answer(Verdict.ARRIVED)
        return _failure(int(failed[0].get("FailureReason", 0)))


def web_client(url: str, user: str, password: str, timeout_s: float) -> DICOMwebClient:
    """A client that does not try again by itself: the journal does, and remembers it."""
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)  # its messages name UIDs
    session = create_session_from_user_pass(user, password) if user else create_session()
    client = DICOMwebClient(url, session=session, timeout=timeout_s)
    client.set_http_retry_params(retry=False)
    return client


def _http_answer(error: requests.HTTPError) -> Answer:
    code = error.response.status_code if error.response is not None else 0
    if code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return Answer(Verdict.UNKNOWN_KIND, _status(error))
    if code in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT):
        reason = _failure_reason(error)
        if reason:
            return _failure(reason)
    if code in _FOR_GOOD:
        return Answer(Verdict.REFUSED, _status(error))
    return Answer(Verdict.LATER, _status(error))


def _failure(reason: int) -> Answer:
    text = f"the server answers failure 0x{reason:04X}"
    if reason in _UNKNOWN_KIND:
        return Answer(Verdict.UNKNOWN_KIND, text)
    if reason == 0x0111:  # duplicate SOP instance: it is there
        return Answer(Verdict.ARRIVED)
    if reason & 0xFF00 == 0xA700 or reason == 0x0110:  # out of resources, processing failure
        return Answer(Verdict.LATER, text)
    return Answer(Verdict.REFUSED, text)


def _failure_reason(error: requests.HTTPError) -> int:
    """Failure Reason (0008,1197) of the first failed instance in a DICOM JSON body, 0 where there is none."""
    if error.response is None:
        return 0
    try:
        return int(error.response.json()["00081198"]["Value"][0]["00081197"]["Value"][0])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return 0


def _status(error: requests.HTTPError) -> str:
    return f"the server answers {error.response.status_code if error.response is not None else 'nothing'}"
