"""Evaluation against a known truth: synthetic lesions put into real scans."""

from klip_engine.evaluation.insertion import FluidRecord, Insertion, LesionRecord, insert, insert_at, lesion_mask
from klip_engine.evaluation.lesions import LESION_KINDS, LesionKind, lesion_kind

__all__ = [
    "LESION_KINDS",
    "FluidRecord",
    "Insertion",
    "LesionKind",
    "LesionRecord",
    "insert",
    "insert_at",
    "lesion_kind",
    "lesion_mask",
]
