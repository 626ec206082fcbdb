"""Settings by name, and how what a user says beside a name or a file becomes `DetectionSettings`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from klip_engine.errors import UsageError
from klip_engine.operators.registry import SCANS
from klip_engine.samplers import DDPM, PaDIS, PredictorCorrector
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.settings import SCORES, DetectionSettings, OperatorSettings, SamplingSettings, ScoreSettings

SCAN_SAMPLING = SamplingSettings(steps=20, sigma_max=3.0, sigma_min=0.006)
"""For scans and blurred images, where the prior has to fill in what was not measured, from coarse to fine."""

PUBLISHED_BLUR = OperatorSettings(
    "blur", noise_hu=10.0, add_noise=True, kernel_size=21, sigma_px=9.0, per_pixels=256
)
"""The paper's: 21 x 21 pixels, sigma 9, of 256."""


def _published(
    name: str,
    operator: OperatorSettings,
    sampling: SamplingSettings,
    block_mm: float,
    kept_levels: list[float],
) -> DetectionSettings:
    """A preset with the published score: plain pulls between the kept steps 65 and 85 of 100.

    Step k covers the noise levels from its own to that of step k + 1, so steps [65, 85) are sigma_85 to sigma_65.
    """
    window = ScoreTerm((kept_levels[85], kept_levels[65]), "plain")
    return DetectionSettings(operator, sampling, ScoreSettings(name, (window,), (block_mm,)))


_PUBLISHED_FIELD_MM = 384.0
"""Side of the published CT images, taken to be what is usual of a body scan: blocks are converted with it."""

_PC, _PADIS, _DDPM = PredictorCorrector(), PaDIS(), DDPM()

PUBLISHED_PRESETS: dict[str, DetectionSettings] = {
    "klip-pc": _published(
        "klip-pc",
        OperatorSettings("parallel", views=24),
        SamplingSettings("pc", _PC.steps, 8, _PC.sigma_max, _PC.sigma_min, antithetic=False),
        32 * _PUBLISHED_FIELD_MM / 512,
        _PC.levels[:: _PC.keep],
    ),
    "klip-padis": _published(
        "klip-padis",
        OperatorSettings("parallel", views=24),
        SamplingSettings("padis", _PADIS.steps, 5, _PADIS.sigma_max, _PADIS.sigma_min, antithetic=False),
        2 * _PUBLISHED_FIELD_MM / 256,
        _PADIS.levels,
    ),
    "klip-ddpm-deblur": _published(
        "klip-ddpm-deblur",
        PUBLISHED_BLUR,
        SamplingSettings(
            "ddpm", _DDPM.steps, 8, _DDPM.levels[0], _DDPM.levels[-1], antithetic=False, options={"zeta": 3.0}
        ),
        1 * _PUBLISHED_FIELD_MM / 256,
        _DDPM.levels,
    ),
}
"""The paper's own settings (docs/samplers.md): hundreds to thousands of network evaluations per sample. No null
distribution of them comes with a prior; the first detection measures one, which takes as long as 64 slices."""

PRESETS: dict[str, DetectionSettings] = {
    "default": DetectionSettings(),
    "fast": DetectionSettings(sampling=SamplingSettings(steps=8)),
    "sparse-24": DetectionSettings(operator=OperatorSettings("parallel", views=24), sampling=SCAN_SAMPLING),
    "fan-24": DetectionSettings(operator=OperatorSettings("fan-flat", views=24), sampling=SCAN_SAMPLING),
    "limited-angle": DetectionSettings(
        operator=OperatorSettings("parallel", views=120, arc_deg=120.0), sampling=SCAN_SAMPLING
    ),
    "low-dose": DetectionSettings(
        operator=OperatorSettings("parallel", views=180, dose="very-low"), sampling=SCAN_SAMPLING
    ),
    "deblur": DetectionSettings(
        operator=PUBLISHED_BLUR,
        sampling=SCAN_SAMPLING,
    ),
    "denoise": DetectionSettings(operator=OperatorSettings(noise_hu=50.0, add_noise=True)),
    **PUBLISHED_PRESETS,
}
"""Settings by name: `default` looks at the image itself, `fast` takes half of the network evaluations, `sparse-24`
is the paper's task, 24 parallel views. The others are further inverse problems (docs/inverse-problems.md): 24 fan
views, parallel views over 120 degrees only, a scan with few photons, the paper's blur (21 pixels, sigma 9, of 256)
and white noise. The paper's own samplers are in `PUBLISHED_PRESETS`."""


def choose_settings(
    preset: str = "default",
    *,
    settings: str | Path | None = None,
    operator: str | None = None,
    views: int | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    score: str | None = None,
    false_alarms: float | None = None,
    device: str | None = None,
    seed: int | None = None,
    batch_slices: int | None = None,
) -> DetectionSettings:
    """Settings from a preset, or else from a file (see `read_settings`), and what the user said beside it.

    Naming another operator than the preset's brings the sampling that suits it, unless the preset's sampler is not
    the default one. What was set of the operator it replaces is dropped; among scans, views and dose are kept.
    Raises UsageError naming the choices.
    """
    if settings is not None and preset != "default":
        raise UsageError("give either a preset or a file with settings, not both")
    base = _named(PRESETS, preset, "preset") if settings is None else read_settings(Path(settings))
    if operator is not None and operator != base.operator.name:
        base = replace(base, operator=_another_operator(base.operator, operator))
        if base.sampling.sampler == SamplingSettings.sampler:
            suits = SamplingSettings() if operator == OperatorSettings.name else SCAN_SAMPLING
            base = replace(base, sampling=suits)
    if sampler is not None and sampler != base.sampling.sampler:
        base = replace(base, sampling=replace(base.sampling, options={}))
    return replace(
        base,
        operator=_given(base.operator, views=views),
        sampling=_given(base.sampling, sampler=sampler, steps=steps, samples=samples),
        score=base.score if score is None else _named(SCORES, score, "score"),
        **_without_none(false_alarms=false_alarms, device=device, seed=seed, batch_slices=batch_slices),
    )


def read_settings(path: str | Path) -> DetectionSettings:
    """Settings from a JSON file: what `klip-engine tune` wrote, or a findings.json, to run the same again.

    Raises UsageError when it cannot be read or holds something else.
    """
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the settings {path}: it is missing or not JSON") from error
    inner = plain.get("settings", plain) if isinstance(plain, dict) else plain
    if not isinstance(inner, dict):
        raise UsageError(f"{path} holds no settings of a detection")
    return DetectionSettings.from_dict(inner)


def _another_operator(settings: OperatorSettings, name: str) -> OperatorSettings:
    if settings.name in SCANS and name in SCANS:
        return replace(settings, name=name)
    return OperatorSettings(name)


def _named(choices: dict[str, Any], name: str, what: str) -> Any:
    if name not in choices:
        raise UsageError(f"no {what} is called '{name}'; there are: {', '.join(choices)}")
    return choices[name]


def _given(settings: Any, **values: Any) -> Any:
    return replace(settings, **_without_none(**values))


def _without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
