"""What Slicer's Python lacks is found without touching it, and comes only the safe way, after a question."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {"numpy": "2.4.0", "simpleitk": "2.5.0", "pydicom": "3.0.2", "highdicom": "0.27.0", "pillow": "12.2.0"}
"""What Slicer 5.12 and 5.13 bring."""
EXTRAS = {"monai": "1.6.1", "einops": "0.8.1", "safetensors": "0.6.2", "typer": "0.20.0", "rich": "14.0.0"}
COMPLETE = SHIPPED | EXTRAS | {"torch": "2.9.0+cu128"}


@pytest.fixture
def dependencies(library):
    return library("dependencies")


@dataclass
class Slicer:
    """Slicer 5.12's parts as `ensure` asks for them, with the packages in it; pip's work is remembered."""

    installed: dict[str, str]
    modules: tuple[str, ...] = ("slicer", "slicer.util", "slicer.packaging", "PyTorchUtils")
    says_yes: bool = True
    takes_torch: bool = True
    testing: bool = False
    pip_fails: bool = False
    pip_forgets: bool = False
    questions: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    constraints: str = ""

    def version(self, name: str) -> str:
        """importlib.metadata.version."""
        try:
            return self.installed[canonicalize_name(name)]
        except KeyError:
            raise PackageNotFoundError(name) from None

    def load(self, name: str) -> Any:
        """importlib.import_module."""
        if name not in self.modules:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return {
            "slicer": SimpleNamespace(app=SimpleNamespace(testingEnabled=lambda: self.testing)),
            "slicer.util": SimpleNamespace(confirmOkCancelDisplay=self._ask),
            "slicer.packaging": SimpleNamespace(load_requirements=self._read, pip_ensure=self._pip_ensure),
            "PyTorchUtils": SimpleNamespace(PyTorchUtilsLogic=lambda: SimpleNamespace(installTorch=self._torch)),
        }[name]

    def _ask(self, text: str, windowTitle: str) -> bool:
        self.questions.append(text)
        return self.says_yes

    @staticmethod
    def _read(path: Path) -> list[Requirement]:
        lines = [line.strip() for line in Path(path).read_text().splitlines()]
        return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]

    def _pip_ensure(self, requirements, constraints=None, skip_packages=None, prompt_install=True, requester=None):
        self.constraints = Path(constraints).read_text()
        self.calls.append(
            {"skip_packages": skip_packages, "prompt_install": prompt_install, "requester": requester}
        )
        if self.pip_fails:
            raise RuntimeError("pip ended with 1")
        if not self.pip_forgets:
            self.installed.update({one.name: EXTRAS[one.name] for one in requirements})

    def _torch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):
        self.calls.append({"torch": torchVersionRequirement, "asks": askConfirmation})
        if not self.takes_torch:
            return None
        self.installed["torch"] = "2.9.0+cu128"
        return SimpleNamespace(__version__="2.9.0+cu128")


def refused(dependencies, slicer: Slicer) -> str:
    """The sentence of a refusal; whoever shows it knows it as RuntimeError."""
    with pytest.raises(RuntimeError) as refusal:
        dependencies.ensure(slicer.load, slicer.version)
    assert isinstance(refusal.value, dependencies.DependencyError)
    return str(refusal.value)


class TestLooking:
    def test_nothing_is_missing_where_all_is_there(self, dependencies):
        assert not dependencies.missing_requirements(Slicer(COMPLETE).version)

    def test_a_fresh_slicer_lacks_pytorch_and_the_five_packages(self, dependencies):
        missing = dependencies.missing_requirements(Slicer(SHIPPED).version)
        assert missing.torch == dependencies.ABSENT
        assert set(missing.install) == set(EXTRAS)
        assert missing.replace == () == missing.unsuitable

    def test_the_question_says_what_is_installed_and_from_where(self, dependencies):
        text = dependencies.missing_requirements(Slicer(SHIPPED | {"monai": "1.4.0"}).version).text
        assert "through the extension PyTorch" in text
        assert all(name in text for name in EXTRAS)
        assert "monai >=1.5.1 in place of 1.4.0" in text
        assert "stay as they are" in text

    def test_versions_that_are_none_and_packages_without_metadata_of_slicer_count_as_there(self, dependencies):
        odd = COMPLETE | {"simpleitk": "2.5-custom-build"}
        del odd["numpy"]
        assert not dependencies.missing_requirements(Slicer(odd).version)

    def test_looking_at_this_very_python_changes_nothing(self, dependencies):
        before = {one.metadata["Name"]: one.version for one in distributions()}
        dependencies.missing_requirements()
        assert before == {one.metadata["Name"]: one.version for one in distributions()}


class TestInstalling:
    def test_nothing_is_asked_or_called_where_nothing_is_missing(self, dependencies):
        slicer = Slicer(dict(COMPLETE), modules=())
        dependencies.ensure(slicer.load, slicer.version)
        assert slicer.questions == [] == slicer.calls

    def test_a_fresh_slicer_gets_torch_from_its_extension_and_the_rest_without_torch(self, dependencies):
        slicer = Slicer(dict(SHIPPED))
        dependencies.ensure(slicer.load, slicer.version)
        assert slicer.calls == [
            {"torch": ">=2.8", "asks": True},
            {"skip_packages": ["torch", "SimpleITK"], "prompt_install": False, "requester": "KLIP"},
        ]
        assert len(slicer.questions) == 1
        assert not dependencies.missing_requirements(slicer.version)

    def test_where_only_torch_is_missing_pip_is_left_alone(self, dependencies):
        slicer = Slicer({name: version for name, version in COMPLETE.items() if name != "torch"})
        dependencies.ensure(slicer.load, slicer.version)
        assert slicer.calls == [{"torch": ">=2.8", "asks": True}]

    def test_what_is_installed_is_held_at_its_version(self, dependencies):
        """pip gets every installed package as a constraint: it fails rather than replace one."""
        slicer = Slicer(SHIPPED | {"torch": "2.9.0"})
        dependencies.ensure(slicer.load, slicer.version)
        held = {
            Requirement(line).name: str(Requirement(line).specifier) for line in slicer.constraints.splitlines()
        }
        for one in distributions():
            assert held[canonicalize_name(one.metadata["Name"])].startswith("==")
        import numpy

        assert held["numpy"] == f"=={numpy.__version__}"

    def test_an_old_package_the_user_let_go_is_not_held(self, dependencies):
        slicer = Slicer(COMPLETE | {"monai": "1.4.0"})
        dependencies.ensure(slicer.load, slicer.version)
        assert "monai 1.4.0" not in slicer.questions[0]
        assert "in place of 1.4.0" in slicer.questions[0]
        names = [Requirement(line).name for line in slicer.constraints.splitlines()]
        assert "monai" not in names
        assert "numpy" in names


class TestRefusing:
    def test_the_user_says_no(self, dependencies):
        slicer = Slicer(dict(SHIPPED), says_yes=False)
        assert "without these Python packages" in refused(dependencies, slicer)
        assert slicer.calls == []
        assert slicer.installed == SHIPPED

    def test_the_user_says_no_to_pytorch(self, dependencies):
        slicer = Slicer(dict(SHIPPED), takes_torch=False)
        assert "press Apply again" in refused(dependencies, slicer)
        assert slicer.installed == SHIPPED

    def test_without_the_extension_pytorch(self, dependencies):
        slicer = Slicer(dict(SHIPPED), modules=("slicer", "slicer.util", "slicer.packaging"))
        assert "install the extension PyTorch in the Extensions Manager" in refused(dependencies, slicer)
        assert slicer.questions == []

    def test_an_old_pytorch_is_not_replaced_under_other_extensions(self, dependencies):
        slicer = Slicer(COMPLETE | {"torch": "2.4.1"})
        assert "PyTorch 2.4.1 is installed and KLIP needs >=2.8" in refused(dependencies, slicer)
        assert slicer.calls == []

    def test_an_older_slicer(self, dependencies):
        slicer = Slicer(dict(SHIPPED), modules=("slicer", "slicer.util", "PyTorchUtils"))
        assert "update to Slicer 5.12" in refused(dependencies, slicer)

    @pytest.mark.parametrize(
        ("name", "version"), [("pydicom", "2.4.3"), ("numpy", "1.25.0"), ("simpleitk", "2.2.1")]
    )
    def test_slicers_own_package_is_too_old(self, dependencies, name, version):
        sentence = refused(dependencies, slicer := Slicer(COMPLETE | {name: version}))
        assert version in sentence
        assert "update to Slicer 5.12" in sentence
        assert slicer.calls == [] == slicer.questions

    def test_while_testing_nothing_is_installed(self, dependencies):
        slicer = Slicer(dict(SHIPPED), testing=True)
        assert "while testing" in refused(dependencies, slicer)
        assert slicer.questions == [] == slicer.calls

    def test_pip_fails(self, dependencies):
        assert "pip ended with 1" in refused(dependencies, Slicer(SHIPPED | {"torch": "2.9"}, pip_fails=True))

    def test_pip_says_nothing_and_did_nothing(self, dependencies):
        """slicer.packaging only warns when a dependency of a dependency failed."""
        slicer = Slicer(COMPLETE | {"monai": "1.4.0"}, pip_forgets=True)
        assert refused(dependencies, slicer).startswith("monai could not be installed")

    def test_every_sentence_names_the_way_around(self, dependencies):
        for slicer in (
            Slicer(dict(SHIPPED), says_yes=False),
            Slicer(COMPLETE | {"torch": "2.4.1"}),
            Slicer(dict(SHIPPED), modules=("slicer", "slicer.util", "PyTorchUtils")),
            Slicer(COMPLETE | {"pydicom": "2.4.3"}),
        ):
            assert "a Python environment that has klip-engine under Advanced" in refused(dependencies, slicer)


class TestRequirements:
    def test_they_are_ranges(self, dependencies):
        for requirement in dependencies.requirements():
            assert {one.operator for one in requirement.specifier} == {">="}, requirement

    def test_they_are_the_engines_own_less_what_slicer_brings(self, dependencies):
        core = {Requirement(line).name: Requirement(line) for line in _project()["dependencies"]}
        slicers = [Requirement(line) for line in dependencies.SLICERS_OWN]
        here = {one.name: one for one in [*dependencies.requirements(), *slicers, dependencies.TORCH]}
        assert set(here) == set(core)
        for name, requirement in here.items():
            (lowest,) = requirement.specifier
            assert core[name].specifier.contains(lowest.version), f"{requirement} allows less than {core[name]}"

    def test_slicer_512_satisfies_what_it_must_bring(self, dependencies):
        for line in dependencies.SLICERS_OWN:
            requirement = Requirement(line)
            assert requirement.specifier.contains(SHIPPED[canonicalize_name(requirement.name)])

    def test_nothing_that_comes_along_asks_for_another_version_of_slicers_packages(self, dependencies):
        """From the metadata of what is installed here: the versions of constraints.txt."""
        asked = [one for name in _come_along(dependencies) for one in _requires(name)]
        assert "monai" in _come_along(dependencies)
        for requirement in asked:
            shipped = SHIPPED.get(canonicalize_name(requirement.name))
            assert shipped is None or requirement.specifier.contains(shipped), requirement

    @pytest.mark.parametrize("replaces", ["1.4.0", "1.5.0"])
    def test_monai_that_would_replace_numpy_or_torch_is_never_chosen(self, dependencies, replaces):
        """Their metadata: 1.4.0 asks for numpy < 2, 1.5.0 for torch < 2.7."""
        (monai,) = (one for one in dependencies.requirements() if one.name == "monai")
        assert not monai.specifier.contains(replaces)

    def test_torch_is_as_new_as_monai_asks_for(self, dependencies):
        (asked,) = (one for one in _requires("monai") if one.name == "torch")
        (lowest,) = dependencies.TORCH.specifier
        assert asked.specifier.contains(lowest.version)


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _requires(name: str) -> list[Requirement]:
    """What a package asks for without extras, on this platform."""
    asked = [Requirement(line) for line in requires(name) or []]
    return [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]


def _come_along(dependencies) -> set[str]:
    """The packages of requirements.txt and all they need, less torch and what Slicer brings."""
    left_out = {canonicalize_name(name) for name in dependencies.SKIPPED} | set(SHIPPED)
    found: set[str] = set()
    waiting = [one.name for one in dependencies.requirements()]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found | left_out:
            found.add(name)
            waiting += [one.name for one in _requires(name)]
    return found
