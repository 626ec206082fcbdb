"""Coded concepts of the objects (PS3.16); what no public scheme has is in 99KLIP, described in docs/dicom.md."""

from __future__ import annotations

from typing import NamedTuple

from pydicom.dataset import Dataset

PRIVATE_SCHEME = "99KLIP"


class Code(NamedTuple):
    """Code value, coding scheme designator and code meaning (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str

    def dataset(self) -> Dataset:
        """An item of a code sequence."""
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = self
        return item


SUSPICIOUS_REGION = Code("klip-region", PRIVATE_SCHEME, "Suspicious region")
SCORE = Code("klip-score", PRIVATE_SCHEME, "KLIP score")
P_VALUE = Code("p-value", PRIVATE_SCHEME, "P-value")
RESULT = Code("klip-result", PRIVATE_SCHEME, "Search for suspicious regions")
NOTHING_MARKED = Code("nothing-marked", PRIVATE_SCHEME, "No region scores above the threshold")

BACKGROUND = Code("125040", "DCM", "Background")
MORPHOLOGICALLY_ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
SEGMENTATION = Code("113076", "DCM", "Segmentation")
KLIP_SCORING = Code("klip-scoring", PRIVATE_SCHEME, "KLIP scoring")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
QUANTITY = Code("246205007", "SCT", "Quantity")
NO_UNITS = Code("1", "UCUM", "no units")
MILLILITRE = Code("mL", "UCUM", "mL")
MAXIMUM = Code("56851009", "SCT", "Maximum")
VOLUME = Code("118565006", "SCT", "Volume")
CENTRE = Code("111010", "DCM", "Center")
COMMENT = Code("121106", "DCM", "Comment")
CT_PROCEDURE = Code("25045-6", "LN", "CT unspecified body region")

ENTIRE_BODY = ("WHOLEBODY", Code("38266002", "SCT", "Entire body"))

BODY_PARTS = {
    "ABDOMEN": Code("818981001", "SCT", "Abdomen"),
    "ABDOMENPELVIS": Code("818982008", "SCT", "Abdomen and Pelvis"),
    "BRAIN": Code("12738006", "SCT", "Brain"),
    "CHEST": Code("816094009", "SCT", "Chest"),
    "CHESTABDOMEN": Code("416550000", "SCT", "Chest and Abdomen"),
    "CHESTABDPELVIS": Code("416775004", "SCT", "Chest, Abdomen and Pelvis"),
    "HEAD": Code("69536005", "SCT", "Head"),
    "HEADNECK": Code("774007", "SCT", "Head and Neck"),
    "HEART": Code("80891009", "SCT", "Heart"),
    "KIDNEY": Code("64033007", "SCT", "Kidney"),
    "LIVER": Code("10200004", "SCT", "Liver"),
    "LUNG": Code("39607008", "SCT", "Lung"),
    "NECK": Code("45048000", "SCT", "Neck"),
    "PELVIS": Code("816092008", "SCT", "Pelvis"),
    "SPINE": Code("421060004", "SCT", "Spine"),
    "WHOLEBODY": ENTIRE_BODY[1],
}
"""Body Part Examined of the source to the code a frame's anatomy needs (PS3.16 Annex L)."""
