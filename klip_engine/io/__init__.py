"""Reading CT and photographs, and writing results: everything that touches files."""

from klip_engine.io.atomic import check_replaceable, results_folder, scratch_folder
from klip_engine.io.dicom_series import Study, read_dicom
from klip_engine.io.images import find_study, read_ct
from klip_engine.io.loaded import Loaded, LoadedCT, LoadedPhotograph
from klip_engine.io.photographs import read_photograph
from klip_engine.io.report import render_report
from klip_engine.io.report_pictures import png_bytes, score_rgb
from klip_engine.io.results import findings_document, write_results

__all__ = [
    "Loaded",
    "LoadedCT",
    "LoadedPhotograph",
    "Study",
    "check_replaceable",
    "find_study",
    "findings_document",
    "png_bytes",
    "read_ct",
    "read_dicom",
    "read_photograph",
    "render_report",
    "results_folder",
    "score_rgb",
    "scratch_folder",
    "write_results",
]
