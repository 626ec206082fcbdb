"""The demo scan is registered in Slicer's module Sample Data: from the engine's folder, without a download."""

from __future__ import annotations

import hashlib
import urllib.request
from types import SimpleNamespace

import pytest
import SimpleITK as sitk


class SampleData:
    """Slicer's module: keeps what is registered; its download is urllib's, as in Slicer."""

    def __init__(self) -> None:
        self.sources: list[dict[str, str]] = []
        self.SampleDataLogic = SimpleNamespace(registerCustomSampleDataSource=self._register)

    def _register(
        self, category, sampleName, uris, fileNames, nodeNames, thumbnailFileName, loadFileTypes, checksums
    ):
        source = dict(locals())
        del source["self"]
        if source not in self.sources:
            self.sources.append(source)


@pytest.fixture
def registered(library) -> dict[str, str]:
    module = SampleData()
    library("sample_data").register(module)
    library("sample_data").register(module)
    (source,) = module.sources
    return source


def test_it_has_its_category_its_name_and_a_picture(registered):
    assert (registered["category"], registered["sampleName"]) == ("KLIP", "CT chest with inserted nodule")
    with open(registered["thumbnailFileName"], "rb") as stream:
        assert stream.read(8) == b"\x89PNG\r\n\x1a\n"


def test_the_address_is_a_file_of_the_engine_and_slicer_can_copy_it(registered, tmp_path):
    assert registered["uris"].startswith("file:")
    copy, _headers = urllib.request.urlretrieve(registered["uris"], tmp_path / registered["fileNames"])
    algorithm, digest = registered["checksums"].split(":")
    assert algorithm == "SHA256"
    assert hashlib.sha256((tmp_path / registered["fileNames"]).read_bytes()).hexdigest() == digest
    assert sitk.ReadImage(str(copy)).GetSize() == (221, 175, 24)


def test_an_engine_without_its_data_is_named(library, monkeypatch, tmp_path):
    import klip_engine

    monkeypatch.setattr(klip_engine, "__file__", str(tmp_path / "klip_engine" / "__init__.py"))
    with pytest.raises(FileNotFoundError, match="install the extension KLIP again"):
        library("sample_data").register(SampleData())
