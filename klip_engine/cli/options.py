"""Options that several commands share; those that make up `DetectionSettings` are named here and nowhere else."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from klip_engine.console import ProgressStyle

if TYPE_CHECKING:
    from klip_engine.settings import DetectionSettings

Prior = Annotated[str, typer.Option(help="A built-in prior or a bundle folder.")]
Progress = Annotated[ProgressStyle, typer.Option(help="Progress for people, for programs, or none.")]
Item = Annotated[
    int | None, typer.Option(help="Of projections with several slices (LoDoPaB-CT): which, from 0.", min=0)
]
Stack = Annotated[Path | None, typer.Option(help="Of an RTK geometry: its images, where they lie elsewhere.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: auto.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all random numbers; default: 0.", min=0)]
HealthyVolumes = Annotated[
    list[Path],
    typer.Argument(help="Healthy volume files, DICOM folders or tables (.csv: file, patient, slices)."),
]
HealthySlices = Annotated[int, typer.Option(help="Healthy slices per volume, evenly chosen.", min=1)]


@dataclass(frozen=True)
class SettingsOptions:
    """What the user said of the settings, by the names of `choose_settings`; in the order of the help."""

    preset: Annotated[
        str,
        typer.Option(
            help="Settings to start from: default, fast, sparse-24, fan-24, limited-angle, low-dose, deblur, "
            "denoise; the paper's: klip-pc, klip-padis, klip-ddpm-deblur."
        ),
    ] = "default"
    settings: Annotated[
        Path | None,
        typer.Option(help="Settings from a file instead of a preset: of `tune`, or a findings.json."),
    ] = None
    operator: Annotated[
        str | None, typer.Option(help="What is measured: identity, parallel, fan-flat, fan-curved or blur.")
    ] = None
    views: Annotated[int | None, typer.Option(help="Views of a CT operator.", min=1)] = None
    sampler: Annotated[str | None, typer.Option(help="Posterior sampler: dds, dps, padis, pc or ddpm.")] = None
    steps: Annotated[int | None, typer.Option(help="Noise levels, one network evaluation each.", min=2)] = None
    samples: Annotated[int | None, typer.Option(help="Posterior samples per slice.", min=1)] = None
    score: Annotated[
        str | None, typer.Option(help="klip-multiscale, klip-coherent, klip-variance, klip or kl.")
    ] = None
    false_alarms: Annotated[
        float | None,
        typer.Option(help="Accepted share of healthy slices on which something is marked."),
    ] = None
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: auto, or as in --settings.")] = (
        None
    )
    seed: Seed = None
    batch_slices: Annotated[int | None, typer.Option(help="Slices computed together.", min=1)] = None

    def base(self) -> DetectionSettings:
        """The preset or the file alone."""
        from klip_engine.presets import choose_settings

        return choose_settings(self.preset, settings=self.settings)

    def choose(self, **further: Any) -> DetectionSettings:
        """The settings that all of it comes to; further: what the command says itself, by the same names."""
        from klip_engine.presets import choose_settings

        return choose_settings(**vars(self) | further)


Command = Callable[..., None]


def takes_settings(without: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """A decorator: the command's parameter `options: SettingsOptions` becomes the options of that class.

    typer takes a command's options from its signature, so they are put there, one parameter each.
    without: those that the command does not offer; they keep their defaults.
    """

    def decorate(command: Command) -> Command:
        kinds = get_type_hints(SettingsOptions, include_extras=True)
        offered = [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=kinds[one.name]
            )
            for one in fields(SettingsOptions)
            if one.name not in without
        ]
        parameters: list[inspect.Parameter] = []
        for one in inspect.signature(command, eval_str=True).parameters.values():
            parameters += offered if one.annotation is SettingsOptions else [one]

        @functools.wraps(command)
        def with_options(**values: Any) -> None:
            said = {one.name: values.pop(one.name) for one in offered}
            command(options=SettingsOptions(**said), **values)

        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {one.name: one.annotation for one in parameters}
        return with_options

    return decorate
