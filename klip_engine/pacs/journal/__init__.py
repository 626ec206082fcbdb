"""The journal: what the service knows of every study, on disk before it is relied on."""

from klip_engine.pacs.journal.deliveries import Deliveries, Delivery, DeliveryState
from klip_engine.pacs.journal.jobs import Job, Jobs, JobState
from klip_engine.pacs.journal.journal import Journal
from klip_engine.pacs.journal.studies import Instance, SeriesDecision, Studies, Study, StudyState

__all__ = [
    "Deliveries",
    "Delivery",
    "DeliveryState",
    "Instance",
    "Job",
    "JobState",
    "Jobs",
    "Journal",
    "SeriesDecision",
    "Studies",
    "Study",
    "StudyState",
]
