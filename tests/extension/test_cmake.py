"""The extension is configured, built and installed with a stand-in for Slicer's CMake files; the result runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "KLIPExtension"
STANDIN = Path(__file__).resolve().parent / "slicer_standin"
SCRIPTED = "lib/Slicer-5.12/qt-scripted-modules"
NOT_PACKAGED = {"CMakeLists.txt", "CMake/CopyEngine.cmake"}
"""Files of KLIPExtension that only the build needs; Testing/ is not packaged either."""


def files_below(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def listed_files() -> list[str]:
    """What SCRIPTS and RESOURCES name."""
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    lists = re.findall(r"set\(MODULE_PYTHON_(?:SCRIPTS|RESOURCES)([^)]*)\)", text)
    return [name for names in lists for name in names.split()]


def expected_module_files() -> set[str]:
    return {name for name in files_below(MODULE) if not name.startswith("Testing/")} - NOT_PACKAGED


def test_every_file_of_the_module_is_listed_once():
    listed, there = listed_files(), expected_module_files()
    assert there - set(listed) == set(), "these files are not listed in KLIPExtension/CMakeLists.txt"
    assert set(listed) - there == set(), "KLIPExtension/CMakeLists.txt lists files that are not there"
    assert len(listed) == len(set(listed))


def run(*command: object, **options) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(
        words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False, **options
    )


def succeed(*command: object, **options) -> str:
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def cmake() -> str:
    program = shutil.which("cmake")
    if program is None:
        pytest.skip("needs cmake, which is not here")
    if not (shutil.which("c++") or os.environ.get("CXX")):
        pytest.skip("needs a C++ compiler: project() asks for one, as every Slicer extension's does")
    return program


@pytest.fixture(scope="module")
def trees(cmake, tmp_path_factory) -> tuple[Path, Path]:
    """The build tree and the installed tree; the path has a space, as Windows users' have."""
    folder = tmp_path_factory.mktemp("with space")
    build, prefix = folder / "build", folder / "installed"
    succeed(cmake, "-S", ROOT, "-B", build, f"-DSlicer_DIR={STANDIN}")
    succeed(cmake, "--build", build)
    succeed(cmake, "--install", build, "--prefix", prefix)
    return build, prefix


@pytest.mark.parametrize("which", ["build", "installed"])
def test_module_and_engine_lie_side_by_side_complete(trees, which):
    tree = trees[0] if which == "build" else trees[1]
    packed = files_below(tree / SCRIPTED)
    engine = {f"klip_engine/{name}" for name in files_below(ROOT / "klip_engine")}
    assert "klip_engine/data/priors/default/models/model.safetensors" in engine
    assert packed == expected_module_files() | engine


def test_no_caches_of_this_machine_are_installed(trees):
    assert not list(trees[1].rglob("__pycache__"))


def test_a_file_that_left_the_engine_leaves_the_build_tree(cmake, trees):
    stale = trees[0] / SCRIPTED / "klip_engine" / "gone.py"
    stale.write_text("")
    succeed(cmake, "--build", trees[0])
    assert not stale.exists()


def installed_python(trees, *words: object, elsewhere: Path) -> str:
    """Python with nothing but the installed tree on its path; no source checkout, no editable install."""
    folder = str(trees[1] / SCRIPTED)
    start = (
        "import sys, runpy; "
        f"sys.path[:] = [{folder!r}] + [p for p in sys.path if p and p != {str(ROOT)!r}]; "
        "sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in str(getattr(f, '__module__', f))]; "
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return succeed(sys.executable, "-c", start + " ".join(map(str, words)), cwd=elsewhere, env=environment)


def test_the_installed_engine_is_the_one_that_runs(trees, tmp_path):
    printed = installed_python(trees, "import klip_engine; print(klip_engine.__file__)", elsewhere=tmp_path)
    assert Path(printed.strip()).is_relative_to(trees[1])


def test_the_installed_command_line_knows_its_version_and_the_default_prior(trees, tmp_path):
    from klip_engine import __version__

    command = "sys.argv[1:] = {}; runpy.run_module('klip_engine', run_name='__main__')"
    assert installed_python(trees, command.format(["--version"]), elsewhere=tmp_path).split()[-1] == __version__
    assert "edm" in installed_python(trees, command.format(["info", "default"]), elsewhere=tmp_path)


def test_the_installed_engine_detects(trees, tmp_path):
    """A whole detection with the default prior on two slices of the demo scan that was installed with it."""
    import SimpleITK as sitk

    demo = sitk.ReadImage(str(trees[1] / SCRIPTED / "klip_engine" / "data" / "demo" / "demo_ct.nrrd"))
    sitk.WriteImage(demo[:, :, 10:12], str(tmp_path / "two.nrrd"))
    arguments = ["detect", "two.nrrd", "-o", "out", "--progress", "none", "--device", "cpu"]
    installed_python(
        trees,
        f"sys.argv[1:] = {arguments}; runpy.run_module('klip_engine', run_name='__main__')",
        elsewhere=tmp_path,
    )
    regions = sitk.ReadImage(str(tmp_path / "out" / "regions.nrrd"))
    assert regions.GetSize() == (221, 175, 2)
    assert (tmp_path / "out" / "report.html").is_file()


def test_ctest_knows_the_tests_inside_slicer(cmake, trees):
    listed = succeed(Path(cmake).with_name("ctest"), "--test-dir", trees[0], "-N")
    for name in ("py_nomainwindow_KLIPModuleGenericTest", "py_KLIP\n", "py_KLIPInstallationTest"):
        assert name in listed


def test_the_package_holds_what_is_installed(cmake, trees):
    build, prefix = trees
    succeed(Path(cmake).with_name("cpack"), "-G", "TGZ", "-B", build, cwd=build)
    with tarfile.open(build / "KLIP.tar.gz") as package:
        names = {member.name.partition("/")[2] for member in package.getmembers() if member.isfile()}
    assert names == files_below(prefix)


def test_a_script_that_is_not_there_stops_the_build(cmake, tmp_path):
    """The stand-in is as strict as Slicer: lists that name a missing file do not configure."""
    shutil.copytree(MODULE, tmp_path / "KLIPExtension")
    for name in ("CMakeLists.txt", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "KLIPExtension" / "KLIPLib" / "about.py").unlink()
    done = run(cmake, "-S", tmp_path, "-B", tmp_path / "build", f"-DSlicer_DIR={STANDIN}")
    assert done.returncode != 0
    assert "there is no file 'KLIPLib/about.py'" in " ".join(done.stdout.split())
