"""The service seen from outside: /health, /metrics and a page for people, on loopback, without patient data."""

from klip_engine.pacs.status.server import StatusServer
from klip_engine.pacs.status.snapshot import Watched

__all__ = ["StatusServer", "Watched"]
