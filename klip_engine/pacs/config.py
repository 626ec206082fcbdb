"""The one TOML file of the service: what it holds, and what must agree in it (docs/service.md)."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from klip_engine.errors import InputError, UsageError
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
        _check(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config


def _check(config: ServiceConfig) -> None:
    """What single values cannot tell: names that must differ, ports that clash, numbers without sense."""
    if config.listener is None and not config.dicomweb and not config.folders:
        raise InputError("there is no door; give [listener], [[dicomweb]] or [[folders]]")
    if not config.destinations:
        raise InputError("destinations is empty; give at least one [[destinations]]")
    _unique("destinations", "name", [one.name for one in config.destinations])
    _unique("dicomweb", "name", [one.name for one in config.dicomweb])
    allowed = [peer.ae_title.strip() for peer in config.listener.peers] if config.listener else []
    for k, destination in enumerate(config.destinations):
        if destination.commitment and destination.ae_title.strip() not in allowed:
            raise InputError(
                f"destinations[{k}].commitment: the peer reports to the listener; name its AE title in "
                "[[listener.peers]]"
            )
        _check_destination(destination, f"destinations[{k}]", config.engine)
    if config.listener is not None:
        _check_listener(config.listener)
    for k, watch in enumerate(config.dicomweb):
        _check_url(watch.url, f"dicomweb[{k}].url")
        if watch.kind == "orthanc":
            _check_url(watch.orthanc_url, f"dicomweb[{k}].orthanc_url")
    for k, folder in enumerate(config.folders):
        if folder.path.is_relative_to(config.state) or config.state.is_relative_to(folder.path):
            raise InputError(f"folders[{k}].path and state lie in one another; choose separate folders")
    _check_ports(config)
    for name in ("description", "exclude_description"):
        try:
            re.compile(getattr(config.rules, name))
        except re.error as error:
            raise InputError(f"rules.{name} is not a regular expression: {error}") from error
    if config.engine.false_alarms is not None and not 0 < config.engine.false_alarms < 1:
        raise InputError("engine.false_alarms has to lie between 0 and 1")
    for key, number in {
        "rules.quiet_s": config.rules.quiet_s,
        "rules.max_series_per_study": config.rules.max_series_per_study,
        "engine.time_limit_min": config.engine.time_limit_min,
        "engine.attempts": config.engine.attempts,
    }.items():
        if number <= 0:
            raise InputError(f"{key} has to be more than 0")
    if min(config.free_disk_mb, config.retention.images_days, config.retention.results_days) < 0:
        raise InputError("free_disk_mb and the days of [retention] cannot be negative")


def _check_listener(listener: Listener) -> None:
    _check_ae(listener.ae_title, "listener.ae_title")
    if not listener.peers:
        raise InputError("listener.peers is empty, so nobody may send; give [[listener.peers]]")
    _unique("listener.peers", "ae_title", [peer.ae_title for peer in listener.peers])
    for k, peer in enumerate(listener.peers):
        _check_ae(peer.ae_title, f"listener.peers[{k}].ae_title")
        for address in peer.addresses:
            try:
                ipaddress.ip_network(address, strict=False)
            except ValueError as error:
                raise InputError(
                    f"listener.peers[{k}].addresses: '{address}' is neither an IP address nor a network"
                ) from error
    if min(listener.max_associations, listener.max_instance_mb, listener.max_memory_mb) < 1:
        raise InputError("listener.max_associations, max_instance_mb and max_memory_mb have to be at least 1")


def _check_destination(destination: Destination, where: str, engine: Engine) -> None:
    if destination.kind == "dicomweb":
        _check_url(destination.url, f"{where}.url")
        if destination.commitment:
            raise InputError(f"{where}.commitment: STOW-RS has no storage commitment; leave it out")
    else:
        _check_ae(destination.ae_title, f"{where}.ae_title")
        _check_ae(destination.calling_ae_title, f"{where}.calling_ae_title")
        if not destination.host or not 0 < destination.port < 65536:
            raise InputError(f"{where} needs host and port")
    for one in destination.objects:
        if one not in engine.objects and one != "labelmap":
            raise InputError(f"{where}.objects: '{one}' is not made; add it to engine.objects")


def _check_ae(title: str, where: str) -> None:
    """PS3.5 6.2: up to 16 characters of the default repertoire, no backslash, not only spaces."""
    if not title.strip() or len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise InputError(f"{where}: '{title}' is not an AE title (1 to 16 ASCII characters, no backslash)")


def _check_url(url: str, where: str) -> None:
    if not re.match(r"https?://[^/\s]+", url):
        raise InputError(f"{where} has to be an address such as http://127.0.0.1:8042/dicom-web")


def _check_ports(config: ServiceConfig) -> None:
    ports = {"listener.port": config.listener, "status.port": config.status}
    for where, part in ports.items():
        if part is not None and not 0 <= part.port < 65536:
            raise InputError(f"{where} has to be between 0 and 65535")
    if config.listener and config.status and 0 < config.listener.port == config.status.port:
        raise InputError("listener.port and status.port are the same; choose two")


def _unique(where: str, key: str, names: list[str]) -> None:
    for name in names:
        if not name.strip():
            raise InputError(f"{where}: a {key} is empty")
        if names.count(name) > 1:
            raise InputError(f"{where}: the {key} '{name}' is given twice")
