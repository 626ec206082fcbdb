"""The TOML file: the example is good, every mistake is one sentence that names its key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from klip_engine.errors import InputError, UsageError
from klip_engine.pacs.check import check_service
from klip_engine.pacs.config import load_config
from tests.conftest import run_cli

GOOD = """
state = "state"
[listener]
port = 11112
peers = [{ ae_title = "SCANNER" }]
[[destinations]]
name = "pacs"
kind = "dicom"
host = "127.0.0.1"
port = 4242
ae_title = "ORTHANC"
"""


def test_the_example_in_deploy_loads():
    config = load_config(Path(__file__).parents[2] / "deploy" / "klip-serve.toml")
    assert config.listener is not None
    assert config.listener.address == "127.0.0.1"
    assert config.destinations


def test_paths_start_from_the_file(tmp_path):
    file = tmp_path / "service.toml"
    file.write_text(GOOD)
    assert load_config(file).state == tmp_path / "state"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('state = "state"', "", "state is missing"),
        ('state = "state"', "state = 5", "state has to be a path"),
        ("port = 11112", 'port = "11112"', "listener.port has to be a whole number"),
        ("port = 11112", "port = true", "listener.port has to be a whole number"),
        ("port = 11112", "prot = 11112", "listener.prot is not a setting; known are port, peers"),
        ("port = 11112", "port = 70000", "listener.port has to be between 0 and 65535"),
        ('peers = [{ ae_title = "SCANNER" }]', "peers = []", "listener.peers is empty"),
        ('"SCANNER"', '"A TITLE THAT IS TOO LONG"', r"listener.peers\[0\].ae_title: .* is not an AE title"),
        ('{ ae_title = "SCANNER" }', '{ ae_title = "A" }, { ae_title = "A" }', "'A' is given twice"),
        (
            '{ ae_title = "SCANNER" }',
            '{ ae_title = "A", addresses = ["x"] }',
            "neither an IP address nor a network",
        ),
        ('kind = "dicom"', 'kind = "ftp"', r"destinations\[0\].kind has to be one of dicom, dicomweb"),
        ('kind = "dicom"', 'kind = "dicomweb"', r"destinations\[0\].url has to be an address"),
        ("port = 4242", "", r"destinations\[0\] needs host and port"),
        ('ae_title = "ORTHANC"', 'ae_title = "ORTHANC"\nobjects = ["pdf"]', r"objects\[0\] has to be one of"),
        ('ae_title = "ORTHANC"', 'ae_title = "ORTHANC"\n[status]\nport = 11112', "are the same"),
        ('ae_title = "ORTHANC"', 'ae_title = "ORTHANC"\n[rules]\ndescription = "("', "not a regular expression"),
        ('ae_title = "ORTHANC"', 'ae_title = "ORTHANC"\n[[folders]]\npath = "state/in"', "lie in one another"),
        ("[listener]", "[listener", "is not TOML"),
    ],
)
def test_mistakes_by_name(tmp_path, old, new, sentence):
    file = tmp_path / "service.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError, match=sentence) as error:
        load_config(file)
    assert str(file) in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(UsageError, match="cannot read the configuration"):
        load_config(tmp_path / "nothing.toml")


def test_no_door(tmp_path):
    file = tmp_path / "service.toml"
    file.write_text(
        GOOD.replace("[listener]\nport = 11112\n", "").replace('peers = [{ ae_title = "SCANNER" }]', "")
    )
    with pytest.raises(InputError, match="there is no door"):
        load_config(file)


def test_check_says_what_is_wrong_and_what_to_do(tmp_path, capsys):
    file = tmp_path / "service.toml"
    file.write_text(GOOD.replace("port = 4242", "port = 1"))
    code, out, err = run_cli(capsys, "serve", "--check", file)
    assert code == 3
    assert "FAILED  destination pacs" in out
    assert "the peer cannot be reached" in out
    assert "ok      prior default" in out
    assert "1 of the checks failed" in err


def test_check_makes_no_folder(tmp_path):
    state = tmp_path / "not" / "there"
    file = tmp_path / "service.toml"
    file.write_text(GOOD)
    config = replace(load_config(file), state=state)
    assert next(one for one in check_service(config) if one.what == "state folder").is_well
    assert not state.parent.exists()
    (tmp_path / "file").touch()
    config = replace(config, state=tmp_path / "file" / "state")
    assert "cannot be written" in next(one for one in check_service(config) if one.what == "state folder").cure


def test_retry_dead_without_a_journal(tmp_path, capsys):
    file = tmp_path / "service.toml"
    file.write_text(GOOD)
    code, _, err = run_cli(capsys, "serve", "--retry-dead", file)
    assert code == 2
    assert "there is no journal" in err
