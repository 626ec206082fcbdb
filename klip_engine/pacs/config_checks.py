"""What must agree in a configuration: every mistake is one sentence with the key's full path and the cure."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from klip_engine.errors import InputError

if TYPE_CHECKING:
    from klip_engine.pacs.config import Destination, Engine, Listener, ServiceConfig, Status


def check_config(config: ServiceConfig) -> None:
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
    if config.log.max_mb < 1 or config.log.keep < 0:
        raise InputError("log.max_mb has to be at least 1 and log.keep cannot be negative")
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
    if config.status is not None:
        _check_status(config.status)
    if config.listener and config.status and 0 < config.listener.port == config.status.port:
        raise InputError("listener.port and status.port are the same; choose two")


def _check_status(status: Status) -> None:
    try:
        is_loopback = ipaddress.ip_address(status.address).is_loopback
    except ValueError as error:
        raise InputError(f"status.address: '{status.address}' is not an IP address") from error
    if not is_loopback and not status.beyond_loopback:
        raise InputError(
            f"status.address: {status.address} can be reached from other computers, and the page has no login; "
            "use 127.0.0.1, or say status.beyond_loopback = true"
        )


def _unique(where: str, key: str, names: list[str]) -> None:
    for name in names:
        if not name.strip():
            raise InputError(f"{where}: a {key} is empty")
        if names.count(name) > 1:
            raise InputError(f"{where}: the {key} '{name}' is given twice")
