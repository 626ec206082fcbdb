"""The files in deploy/ agree with one another and with the programs that read them.

The container itself is not built here; what it is made of is.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from klip_engine.pacs.config import load_config
from klip_engine.pacs.sending import Verdict
from klip_engine.pacs.stow import StowSender
from tests import orthanc as orthancs

DEPLOY = Path(__file__).parents[2] / "deploy"
CONTAINER = DEPLOY / "container"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit_and_finds_it_hardened(tmp_path):
    unit = tmp_path / "klip-serve.service"
    text = (DEPLOY / "systemd" / "klip-serve.service").read_text()
    here = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.M)  # the program is not installed here
    unit.write_text(here.replace("User=klip", "User=daemon").replace("Group=klip", "Group=daemon"))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    exposure = re.search(r"exposure level for klip-serve\.service: ([\d.]+)", judged.stdout)
    assert exposure, judged.stderr
    assert float(exposure[1]) < 2.5  # of 10; an unhardened service has 9.6


def test_the_unit_starts_what_the_example_configures():
    unit = (DEPLOY / "systemd" / "klip-serve.service").read_text()
    assert "ExecStart=/opt/klip/bin/klip-engine serve /etc/klip/serve.toml" in unit
    assert load_config(DEPLOY / "klip-serve.toml").state == Path("/var/lib/klip")
    assert "StateDirectory=klip\n" in unit


def test_container_configuration_is_valid_and_agrees_with_its_orthanc():
    settings = load_config(CONTAINER / "klip-serve.toml")
    orthanc = json.loads((CONTAINER / "orthanc.json").read_text())
    assert orthanc["DicomModalities"]["klip"] == [settings.listener.ae_title, "klip", settings.listener.port]
    assert [peer.ae_title for peer in settings.listener.peers] == [orthanc["DicomAet"]]
    web = f"http://orthanc:{orthanc['HttpPort']}{orthanc['DicomWeb']['Root'].rstrip('/')}"
    assert settings.dicomweb[0].url == settings.destinations[0].url == web
    password = (CONTAINER / "orthanc.password").read_text().strip()
    assert orthanc["RegisteredUsers"] == {settings.dicomweb[0].user: password}


def test_compose_mounts_and_publishes_what_the_configuration_names():
    settings = load_config(CONTAINER / "klip-serve.toml")
    compose = (CONTAINER / "compose.yaml").read_text()
    for source, target in re.findall(r"- \./([\w.-]+):([\w./-]+):ro", compose):
        assert (CONTAINER / source).is_file(), source
        assert target.startswith("/etc/")
    assert f":{settings.dicomweb[0].password_file}:ro" in compose
    assert f"- klip:{settings.state}\n" in compose
    assert f'"127.0.0.1:{settings.status.port}:{settings.status.port}"' in compose
    assert set(re.findall(r'- "([\d.]+):\d+:\d+"', compose)) == {"127.0.0.1"}
    for text in (compose, (CONTAINER / "Containerfile").read_text()):
        assert "Not " in text.split("\n\n")[0]  # says that it was not run here


def test_containerfile_copies_what_there_is_and_is_not_run_as_root():
    lines = (CONTAINER / "Containerfile").read_text().splitlines()
    root = DEPLOY.parent
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            assert all((root / source).exists() for source in line.split()[1:-1]), line
    assert "USER 10001:10001" in lines
    port = load_config(CONTAINER / "klip-serve.toml").status.port
    assert any(f"http://127.0.0.1:{port}/health" in line for line in lines)


def test_a_real_orthanc_takes_its_settings(tmp_path):
    if orthancs.PROGRAM is None:
        pytest.skip(orthancs.WHY_NOT)
    written = json.loads((CONTAINER / "orthanc.json").read_text())
    places = ("StorageDirectory", "IndexDirectory", "HttpPort", "DicomPort", "Plugins")
    given = {key: value for key, value in written.items() if key not in places}
    orthanc = orthancs.Orthanc(tmp_path, **given)
    password = tmp_path / "password"
    password.write_text((CONTAINER / "orthanc.password").read_text())
    destination = load_config(CONTAINER / "klip-serve.toml").destinations[0]
    orthanc.get = lambda path: _ask(orthanc.url + path)  # type: ignore[method-assign]
    orthanc.start()
    try:
        here = replace(destination, url=orthanc.web, password_file=password)
        assert StowSender(here).echo().verdict is Verdict.ARRIVED
        password.write_text("wrong")
        assert StowSender(here).echo().verdict is Verdict.LATER
    finally:
        orthanc.stop()


def _ask(url: str) -> object:
    import requests

    answer = requests.get(url, auth=("klip", "change-me"), timeout=10)
    answer.raise_for_status()
    return answer.json()
