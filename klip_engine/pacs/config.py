"""The one TOML file of the service: what it holds, and what must agree in it (docs/service.md)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from klip_engine.errors import InputError, UsageError
from klip_engine.pacs.config_checks import check_config
from klip_engine.pacs.config_reader import read_table

ResultObject = Literal["seg", "sr", "pm", "sc", "labelmap"]


@dataclass(frozen=True)
class Peer:
    """A device that may send: its AE title and the addresses or networks (10.1.0.0/16) it may call from."""

    ae_title: str
    addresses: tuple[str, ...] = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class Tls:
    """Certificates as PEM files; with `ca` the other side has to show one that it signed."""

    certificate: Path
    key: Path
    ca: Path | None = None


@dataclass(frozen=True)
class Listener:
    """The DICOM door (C-STORE and C-ECHO)."""

    port: int
    peers: tuple[Peer, ...]
    ae_title: str = "KLIP"
    address: str = "127.0.0.1"
    max_associations: int = 16
    max_instance_mb: int = 1024
    max_memory_mb: int = 2048
    """Of data sets being received, over all associations; beyond it the newest association is ended."""
    max_instances_per_minute: int = 0
    """Per peer; beyond it the peer is slowed down. 0: no limit."""
    idle_timeout_s: float = 60.0
    tls: Tls | None = None


@dataclass(frozen=True)
class DicomwebWatch:
    """A server asked for new CT series: Orthanc's change feed, or QIDO-RS of any other."""

    name: str
    url: str
    """DICOMweb root, such as http://pacs:8042/dicom-web."""
    kind: Literal["orthanc", "qido"] = "qido"
    orthanc_url: str = ""
    """Orthanc's own root, such as http://pacs:8042, for the change feed."""
    every_s: float = 10.0
    days_back: int = 2
    """QIDO only: study dates that are asked for."""
    user: str = ""
    password_file: Path | None = None


@dataclass(frozen=True)
class FolderWatch:
    """A folder that others put DICOM files into; a file that is quiet for `quiet_s` is taken."""

    path: Path
    quiet_s: float = 5.0
    rejected: Path | None = None
    """Where files go that are no usable DICOM, with the reason beside them; default: PATH/rejected."""
    keep: bool = False
    """Leave taken files in place (they are remembered) instead of removing them once they are in the spool."""


@dataclass(frozen=True)
class Rules:
    """Which series are processed, once a study has been quiet for `quiet_s`. Expressions: Python `re`, any case."""

    quiet_s: float = 60.0
    min_slices: int = 8
    max_slice_thickness_mm: float = 5.0
    body_parts: tuple[str, ...] = ()
    """BodyPartExamined has to be one of these; empty: any, also none."""
    description: str = ""
    exclude_description: str = r"scout|topogram|locali[sz]er|dose|\bMIP\b|\bMPR\b"
    max_series_per_study: int = 1
    original_only: bool = True
    """Only series whose ImageType says ORIGINAL or nothing."""


@dataclass(frozen=True)
class Engine:
    """How a series is processed: the options of `klip-engine detect`."""

    prior: str = "default"
    preset: str = "default"
    settings: Path | None = None
    """A file with settings instead of the preset: of `klip-engine tune`, or a findings.json."""
    false_alarms: float | None = None
    device: str = "auto"
    objects: tuple[ResultObject, ...] = ("seg", "sr", "pm", "sc")
    time_limit_min: float = 240.0
    attempts: int = 3
    """For runs that end without a verdict on the input: killed, out of memory, beyond the time limit."""


@dataclass(frozen=True)
class Destination:
    """Where results go: by C-STORE (`kind = "dicom"`) or STOW-RS (`kind = "dicomweb"`)."""

    name: str
    kind: Literal["dicom", "dicomweb"]
    host: str = ""
    port: int = 0
    ae_title: str = ""
    calling_ae_title: str = "KLIP"
    url: str = ""
    user: str = ""
    password_file: Path | None = None
    objects: tuple[ResultObject, ...] = ("seg", "sr", "pm", "sc")
    commitment: bool = False
    """Ask for storage commitment (PS3.4 J) after sending; "dicom" only."""
    timeout_s: float = 60.0
    give_up_after_days: float = 7.0
    longest_pause_s: float = 900.0
    tls: Tls | None = None


@dataclass(frozen=True)
class Retention:
    """What is removed, and when: days after a study's last change, once all its results are delivered. 0: never."""

    images_days: float = 7.0
    results_days: float = 30.0


@dataclass(frozen=True)
class Status:
    """The status page, /health and /metrics."""

    port: int
    address: str = "127.0.0.1"
    beyond_loopback: bool = False
    """Has to be said where `address` is not of this computer alone: the page has no login."""
    hosts: tuple[str, ...] = ()
    """Further names that it may be asked under, such as that of a proxy in front of it."""


@dataclass(frozen=True)
class Log:
    """Where the service's lines go: to stdout, or to a file that is put aside at a size."""

    file: Path | None = None
    max_mb: int = 20
    keep: int = 5
    """How many files that were put aside stay."""


@dataclass(frozen=True)
class ServiceConfig:
    """All of it. state: the folder that holds everything the service knows; it contains patient data."""

    state: Path
    destinations: tuple[Destination, ...]
    listener: Listener | None = None
    dicomweb: tuple[DicomwebWatch, ...] = ()
    folders: tuple[FolderWatch, ...] = ()
    rules: Rules = field(default_factory=Rules)
    engine: Engine = field(default_factory=Engine)
    retention: Retention = field(default_factory=Retention)
    status: Status | None = None
    log: Log = field(default_factory=Log)
    free_disk_mb: int = 2048
    """Instances are refused (0xA700) rather than let the disk have less than this free."""


def load_config(path: Path) -> ServiceConfig:
    """Read and check the file; relative paths in it start from its folder.

    Raises UsageError when it cannot be opened, InputError with the key's path for everything that is wrong in it.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
    try:
        config = read_table(ServiceConfig, document, "", path.resolve().parent)
        check_config(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config
