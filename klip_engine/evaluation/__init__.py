"""Evaluation against a known truth: synthetic lesions put into real scans."""

from klip_engine.evaluation.insertion import Insertion, LesionRecord, insert, insert_at, lesion_mask
from klip_engine.evaluation.lesions import LESION_KINDS, LesionKind, lesion_kind

__all__ = [
    "LESION_KINDS",
    "Insertion",
    "LesionKind",
    "LesionRecord",
    "insert",
    "insert_at",
    "lesion_kind",
    "lesion_mask",
]
