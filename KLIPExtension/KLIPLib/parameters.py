"""Everything the panel can be told, kept in the scene: saved with it, and back when it is read."""

from __future__ import annotations

from typing import Any

from slicer import vtkMRMLScalarVolumeNode
from slicer.parameterNodeWrapper import parameterNodeWrapper

from .command import DEFAULT_RATE, RunSettings


@parameterNodeWrapper
class KLIPParameterNode:
    """Parameters of the module; an empty text or 0 leaves a setting to the engine or the preset.

    The Python environment is none of them (Host.own_python). resultKey: which result of the scene the panel shows
    (its attribute KLIP.Result).
    """

    inputVolume: vtkMRMLScalarVolumeNode
    useInputFile: bool = False
    inputFile: str = ""
    useOwnPrior: bool = False
    priorFolder: str = ""
    falseAlarms: float = DEFAULT_RATE
    preset: str = ""
    operator: str = ""
    views: int = 0
    sampler: str = ""
    steps: int = 0
    samples: int = 0
    device: str = ""
    seed: int = 0
    trustGeometry: bool = False
    resultsFolder: str = ""
    heatMap: bool = True
    overlayOpacity: float = 0.5
    resultKey: str = ""


def run_settings(parameters: Any) -> RunSettings:
    """The settings of a run that the parameters come to."""
    return RunSettings(
        false_alarms=parameters.falseAlarms,
        prior=parameters.priorFolder if parameters.useOwnPrior else "",
        preset=parameters.preset,
        operator=parameters.operator,
        views=parameters.views or None,
        sampler=parameters.sampler,
        steps=parameters.steps or None,
        samples=parameters.samples or None,
        device=parameters.device,
        seed=parameters.seed or None,
        trust_geometry=parameters.trustGeometry,
    )
