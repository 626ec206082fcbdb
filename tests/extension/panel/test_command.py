"""The engine's command line as the module writes it, held to the one the engine has."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from KLIPLib.command import RunSettings, detect_command, engine_home, export_command, interpreter_in


def test_the_command_is_what_the_engine_offers(monkeypatch):
    from typer.main import get_command

    from klip_engine.cli import app

    settings = RunSettings(0.05, "a prior", "fast", "parallel", 24, "dds", 8, 2, "cpu", 3, trust_geometry=True)
    command = detect_command(Path("python"), Path("/a b/scan.nrrd"), Path("/out"), settings)
    assert command[:3] == ["python", "-m", "klip_engine"]
    detect = get_command(app).commands["detect"]
    context = detect.make_context("detect", command[4:])
    given = {name: value for name, value in context.params.items() if value is not None}
    assert given["source"] == "/a b/scan.nrrd"
    assert {name: given[name] for name in vars(settings)} == vars(settings)
    assert given["progress"] == "json"


def test_what_is_left_open_is_not_in_the_command():
    command = detect_command(Path("python"), Path("x"), Path("y"), RunSettings())
    assert command[3:] == ["detect", "x", "-o", "y", "--false-alarms", "0.2", "--progress", "json"]


def test_the_export_is_what_the_engine_offers():
    from typer.main import get_command

    from klip_engine.cli import app

    command = export_command(Path("python"), Path("res"), Path("list.txt"), Path("dcm"), 0.1)
    export = get_command(app).commands.get("export")
    if export is None:
        pytest.skip("this engine has no command 'export'")
    given = export.make_context("export", command[4:]).params
    assert {name: str(given[name]) for name in ("results", "out", "source", "objects", "false_alarms")} == {
        "results": "res", "out": "dcm", "source": "list.txt", "objects": "seg", "false_alarms": "0.1",
    }  # fmt: skip


def test_the_choices_of_the_panel_are_the_engines(app):
    from KLIPLib import choices

    from klip_engine.operators import OPERATORS
    from klip_engine.presets import PRESETS
    from klip_engine.samplers import SAMPLERS

    def values(choice):
        return {value for _, value in choice if value}

    assert values(choices.presets()) == set(PRESETS) - {"default"}
    assert values(choices.operators()) == set(OPERATORS)
    assert values(choices.samplers()) == set(SAMPLERS)


def test_the_interpreter_of_a_virtual_environment_is_found():
    assert interpreter_in(sys.prefix).parent == Path(sys.prefix, "bin")
    assert interpreter_in(sys.executable) == Path(sys.executable)


def test_a_folder_without_python_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no Python in {tmp_path}"):
        interpreter_in(tmp_path)


def test_a_module_without_the_engine_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="install the extension again"):
        engine_home(tmp_path / "KLIP" / "KLIPLib")
