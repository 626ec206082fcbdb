"""The whole way with the real engine: CT in, its SEG, SR, parametric map and summary back in a real Orthanc."""

from __future__ import annotations

import io
import json

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from klip_engine.pacs.config import Engine
from klip_engine.pacs.engine_run import detect_command
from tests.conftest import save_wiener_prior, torso
from tests.pacs.conftest import by_store, config, wait_for
from tests.pacs.sending import send
from tests.pacs.studies import ct_study
from tests.pipeline.conftest import GRID, WIDE_BLOCKS


@pytest.mark.end_to_end
def test_the_segmentation_in_orthanc_is_the_label_map_of_the_engine(orthanc, running, tmp_path):
    hu = torso(8).clip(-1024)
    hu[4, 46:50, 58:62] = 1800
    study = ct_study("real engine", hu=hu)
    (tmp_path / "settings.json").write_text(json.dumps(WIDE_BLOCKS.to_dict()))
    prior = save_wiener_prior(tmp_path / "wiener", GRID, [WIDE_BLOCKS])
    engine = Engine(prior=str(prior), settings=tmp_path / "settings.json", device="cpu")
    state = tmp_path / "state"
    service = running(
        config(state, by_store(orthanc), engine=engine), command=detect_command(engine, engine.objects)
    )
    assert send(study, service.listener.port) == [0] * 8
    wait_for(lambda: service.journal.deliveries.counts() == {("pacs", "done"): 4}, 400)
    uid = study[0].StudyInstanceUID
    assert sorted(orthanc.instances_by_modality(uid)) == ["OT", "SEG", "SR"]
    (result,) = state.glob("jobs/*/result")
    regions = sitk.GetArrayFromImage(sitk.ReadImage(result / "regions.nrrd"))
    assert regions.any()
    seg = hd.seg.Segmentation.from_dataset(_from_orthanc(orthanc, uid, "SEG"))
    assert seg.PatientName == study[0].PatientName
    source = [ds.SOPInstanceUID for ds in study]
    planes = seg.get_pixels_by_source_instance(
        source, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(planes > 0, regions > 0)


def _from_orthanc(orthanc, study: str, modality: str) -> pydicom.Dataset:
    (uid,) = orthanc.instances_by_modality(study)[modality]
    (instance,) = orthanc.find("Instance", {"SOPInstanceUID": uid})
    return pydicom.dcmread(io.BytesIO(orthanc.file(instance)))
