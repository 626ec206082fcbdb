"""Results as DICOM: segmentation, structured report, parametric map and a summary picture (docs/dicom.md)."""

from klip_engine.io.dicom_results.extra import structured_reporting
from klip_engine.io.dicom_results.objects import ALL, DicomObject, parse_objects
from klip_engine.io.dicom_results.source import read_source
from klip_engine.io.dicom_results.write import marked_again, series_of, write_dicom_results
from klip_engine.io.dicom_results.written import WrittenResults, read_written

__all__ = [
    "ALL",
    "DicomObject",
    "WrittenResults",
    "marked_again",
    "parse_objects",
    "read_source",
    "read_written",
    "series_of",
    "structured_reporting",
    "write_dicom_results",
]
