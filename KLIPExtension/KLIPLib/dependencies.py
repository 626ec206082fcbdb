"""What the engine needs in Slicer's Python: a dry look at what is missing, and the way to it, asked for at Apply.

PyTorch comes only through the extension PyTorch, the rest through slicer.packaging (Slicer 5.11 and later). No
package that is already there is replaced, except old versions of the packages of requirements.txt, and only when
the question said so.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion
from packaging.version import Version as ParsedVersion
from slicer.i18n import tr as _

REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
"""What is installed through slicer.packaging."""
SLICERS_OWN = ("numpy>=1.26", "SimpleITK>=2.3", "pydicom>=3.0", "pillow>=10")
"""What Slicer brings; never installed, never replaced. Without metadata it counts as there: Slicer builds some."""
TORCH = Requirement("torch>=2.8")
"""MONAI 1.6, which is what gets installed, asks for PyTorch 2.8."""
ABSENT = "absent"
SKIPPED = ["torch", "SimpleITK"]
"""Left out wherever another package asks for them (MONAI asks for torch)."""

Version = Callable[[str], str]
"""The installed version of a package, or PackageNotFoundError: importlib.metadata.version."""
Import = Callable[[str], Any]
"""A module by its name, or ImportError: importlib.import_module."""


class DependencyError(RuntimeError):
    """The engine cannot run in Slicer's Python; one sentence with the cure, nothing half done by this module."""


@dataclass(frozen=True)
class Missing:
    """What Slicer's Python lacks.

    install: names of packages that are not there; replace: (package, its version, the range that is needed) of
    those that are too old; torch: "" where it is fine, else ABSENT or its version; unsuitable: the same triples
    for packages Slicer brings, which only another Slicer can cure.
    """

    install: tuple[str, ...] = ()
    replace: tuple[tuple[str, str, str], ...] = ()
    torch: str = ""
    unsuitable: tuple[tuple[str, str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.install or self.replace or self.torch or self.unsuitable)

    @property
    def text(self) -> str:
        """The question: what will be installed, where from and what stays as it is."""
        lines = [_("KLIP needs Python packages that this Slicer does not have yet:")]
        if self.torch:
            lines.append(
                _("- PyTorch {range}, 0.2 to 3 GB, through the extension PyTorch").format(range=TORCH.specifier)
            )
        if self.install:
            lines.append(_("- {names} and what they need, about 50 MB").format(names=", ".join(self.install)))
        for name, version, needed in self.replace:
            lines.append(
                _("- {name} {needed} in place of {version} (other extensions may use it)").format(
                    name=name, version=version, needed=needed
                )
            )
        lines.append(
            _(
                "They are downloaded from the internet into Slicer's own Python. The packages Slicer came with "
                "stay as they are. Instead, a Python environment of your own can be chosen under Advanced."
            )
        )
        return "\n".join(lines)


def missing_requirements(version: Version = importlib.metadata.version) -> Missing:
    """What Slicer's Python lacks. Looks only: nothing is imported or installed."""
    wanted = requirements()
    return Missing(
        install=tuple(requirement.name for requirement in wanted if _state(requirement, version) == ABSENT),
        replace=_outside(wanted, version),
        torch=_state(TORCH, version),
        unsuitable=_outside([Requirement(line) for line in SLICERS_OWN], version),
    )


def requirements(path: Path = REQUIREMENTS) -> list[Requirement]:
    """The packages of requirements.txt."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def ensure(load: Import = importlib.import_module, version: Version = importlib.metadata.version) -> None:
    """Ask for what is missing and install it; returns at once when nothing is. For the Apply button only.

    Raises DependencyError, in one sentence, when this Slicer cannot have it, the user says no, or it did not work.
    """
    missing = missing_requirements(version)
    if not missing:
        return
    _check_slicers_own(missing)
    packaging = _packaging(load)
    pytorch = _pytorch(load, missing) if missing.torch else None
    slicer = load("slicer")
    if slicer.app.testingEnabled():
        raise DependencyError(
            _("while testing nothing is installed; missing: {names}").format(names=_names(missing))
        )
    if not load("slicer.util").confirmOkCancelDisplay(missing.text, _("KLIP: install Python packages?")):
        raise DependencyError(_declined())
    if pytorch is not None:
        _install_torch(pytorch)
    if missing.install or missing.replace:
        _install(packaging, missing)
    importlib.invalidate_caches()
    left = missing_requirements(version)
    if left:
        raise DependencyError(
            _("{names} could not be installed; see Slicer's error log, or {other}").format(
                names=_names(left), other=_own_environment()
            )
        )


def _state(requirement: Requirement, version: Version) -> str:
    """Empty where the requirement is met, else ABSENT or the version that is too old or too new.

    A version that is none (builds of one's own have such) counts as met: nobody can tell.
    """
    try:
        installed = version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return ABSENT
    met = not _is_version(installed) or requirement.specifier.contains(installed, prereleases=True)
    return "" if met else installed


def _outside(wanted: list[Requirement], version: Version) -> tuple[tuple[str, str, str], ...]:
    """Name, version and range of what is there but in a version that will not do."""
    states = [(requirement, _state(requirement, version)) for requirement in wanted]
    return tuple((one.name, state, str(one.specifier)) for one, state in states if state not in ("", ABSENT))


def _names(missing: Missing) -> str:
    torch = ["torch"] if missing.torch else []
    others = [name for name, _version, _needed in (*missing.replace, *missing.unsuitable)]
    return ", ".join([*torch, *missing.install, *others])


def _check_slicers_own(missing: Missing) -> None:
    """What Slicer brings is never replaced: that has left Slicers broken."""
    if missing.unsuitable:
        name, state, needed = missing.unsuitable[0]
        raise DependencyError(
            _(
                "this Slicer has {name} {state} and KLIP needs {needed}; update to Slicer 5.12 or later, or {other}"
            ).format(name=name, state=state, needed=needed, other=_own_environment())
        )


def _packaging(load: Import) -> Any:
    try:
        return load("slicer.packaging")
    except ImportError as error:
        raise DependencyError(
            _(
                "this Slicer is too old to install Python packages safely (it has no slicer.packaging); "
                "update to Slicer 5.12 or later, or {other}"
            ).format(other=_own_environment())
        ) from error


def _pytorch(load: Import, missing: Missing) -> Any:
    """The logic of the extension PyTorch, where it can give what is missing."""
    if missing.torch != ABSENT:
        raise DependencyError(
            _(
                "PyTorch {version} is installed and KLIP needs {needed}; uninstall it in the module PyTorch Utils, "
                "restart Slicer and press Apply again, or {other}"
            ).format(version=missing.torch, needed=TORCH.specifier, other=_own_environment())
        )
    try:
        return load("PyTorchUtils").PyTorchUtilsLogic()
    except ImportError as error:
        raise DependencyError(
            _(
                "KLIP needs PyTorch: install the extension PyTorch in the Extensions Manager, restart Slicer and "
                "press Apply again, or {other}"
            ).format(other=_own_environment())
        ) from error


def _install_torch(pytorch: Any) -> None:
    try:
        torch = pytorch.installTorch(askConfirmation=True, torchVersionRequirement=str(TORCH.specifier))
    except Exception as error:  # the extension runs pip: what it raises when that fails is not documented
        raise DependencyError(
            _("PyTorch could not be installed: {reason}; try it in the module PyTorch Utils").format(reason=error)
        ) from error
    if torch is None:
        raise DependencyError(_declined())


def _install(packaging: Any, missing: Missing) -> None:
    """Through slicer.packaging, which shows the progress and offers a restart where a loaded package changed."""
    with _constraints(replaced={canonicalize_name(name) for name, _old, _new in missing.replace}) as constraints:
        try:
            packaging.pip_ensure(
                packaging.load_requirements(REQUIREMENTS),
                constraints=constraints,
                skip_packages=SKIPPED,
                prompt_install=False,
                requester="KLIP",
            )
        except Exception as error:  # CalledProcessError of pip, RuntimeError of slicer.packaging
            raise DependencyError(
                _(
                    "the Python packages could not be installed: {reason}; see Slicer's error log, or {other}"
                ).format(reason=error, other=_own_environment())
            ) from error


@contextmanager
def _constraints(replaced: set[str]) -> Iterator[Path]:
    """A pip constraints file that holds every installed package at its version, but those the user let go."""
    installed: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"] or "")
        if name and name not in replaced and _is_version(distribution.version):
            installed.setdefault(name, distribution.version)  # the first on the path is the one that is imported
    with tempfile.TemporaryDirectory(prefix="klip-") as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("".join(f"{name}=={version}\n" for name, version in sorted(installed.items())), "utf-8")
        yield path


def _is_version(text: str) -> bool:
    """Whether pip would understand it."""
    try:
        ParsedVersion(text)
    except InvalidVersion:
        return False
    return True


def _declined() -> str:
    return _(
        "without these Python packages KLIP cannot run in Slicer's Python; press Apply again, or {other}"
    ).format(other=_own_environment())


def _own_environment() -> str:
    return _("choose a Python environment that has klip-engine under Advanced")
