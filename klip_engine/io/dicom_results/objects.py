"""The DICOM objects a result can become, and what a user may call them."""

from __future__ import annotations

from enum import StrEnum

from klip_engine.errors import UsageError


class DicomObject(StrEnum):
    """One kind of object; the value is its name on the command line and the stem of its file."""

    SEG = "seg"
    SR = "sr"
    PM = "pm"
    SC = "sc"
    LABELMAP = "labelmap"


ALL = (DicomObject.SEG, DicomObject.SR, DicomObject.PM, DicomObject.SC)
"""What `all` stands for. The label map is a second, compact copy of the segmentation that many PACS refuse."""


def parse_objects(text: str) -> tuple[DicomObject, ...]:
    """Objects from words such as `all`, `seg,sr` or `all,labelmap`; a report brings the segmentation it refers to.

    Raises UsageError for a word that is none of them.
    """
    chosen: set[DicomObject] = set()
    for word in text.lower().replace(" ", "").split(","):
        if word == "all":
            chosen.update(ALL)
        elif word in list(DicomObject):
            chosen.add(DicomObject(word))
        else:
            names = ", ".join(DicomObject)
            raise UsageError(f"there is no DICOM object '{word}'; choose from {names}, or all")
    if DicomObject.SR in chosen:
        chosen.add(DicomObject.SEG)
    return tuple(one for one in DicomObject if one in chosen)
