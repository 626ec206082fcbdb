"""The model card of a trained prior, made from what the training saw."""

from __future__ import annotations

from collections import Counter
from typing import Any

from klip_engine.priors.base import NetworkDenoiser
from klip_engine.priors.bundle import PriorBundle
from klip_engine.priors.patches import PatchEDMDenoiser
from klip_engine.training.dataset import SliceSet
from klip_engine.training.trainer import TrainingReport, process_count
from klip_engine.training.training_settings import TrainingSettings
from klip_engine.words import counted
from klip_engine.working_grid import WorkingGrid

_WHAT = {
    "edm": "MONAI `DiffusionModelUNet` under EDM preconditioning, predicting the mean and the variance of the "
    "clean slice",
    "patch-edm": "a patch prior, MONAI `DiffusionModelUNet` under EDM preconditioning, predicting the mean and the "
    "variance of clean patches from the noisy ones and their position",
    "ddpm": "a DDPM, MONAI `DiffusionModelUNet` predicting the noise",
    "ve": "a variance-exploding score model, MONAI `DiffusionModelUNet`",
}


STARTED_FROM = "started-from.md"
"""Beside the model card of a prior that began with another's weights: that one's model card."""


def model_cards(prior: PriorBundle) -> str:
    """The model card of a prior and those of the priors it was started from; empty where it has none."""
    cards = (prior.folder / "docs" / name for name in ("README.md", STARTED_FROM))
    return "\n".join(card.read_text(encoding="utf-8") for card in cards if card.is_file())


def training_facts(
    data: SliceSet,
    validation: SliceSet | None,
    settings: TrainingSettings,
    last: TrainingReport | None,
    excluded: list[str],
    start: PriorBundle | None = None,
) -> dict[str, Any]:
    """What the prior saw, as plain data for the bundle's metadata and every result."""
    started = {} if start is None else {"started_from": start.identity() | {"training": start.training}}
    log_normal = settings.family in ("edm", "patch-edm")
    return {
        "patients": len(set(data.patients)),
        "slices": len(data),
        "images_seen": last.images if last else 0,
        "validation_patients": sorted(set(validation.patients)) if validation else [],
        "validation_error": last.validation if last else None,
        "excluded_patients": excluded,
        "batch_size": settings.batch_size * process_count(),
        "optimiser": settings.optimiser,
        "learning_rate": settings.learning_rate,
        "noise_levels": [settings.sigma_log_mean, settings.sigma_log_std] if log_normal else None,
        "seed": settings.seed,
        **started,
    }


def model_card(
    name: str, denoiser: NetworkDenoiser, grid: WorkingGrid, data: SliceSet, facts: dict[str, Any], note: str
) -> str:
    """Markdown: what it is, what it saw, how it was validated, where it fails, and the data's attributions."""
    lines = [
        f"# Prior `{name}`",
        "",
        f"A diffusion prior of CT slices for KLIP: {_WHAT[denoiser.family]}. **Research only; not for diagnosis or "
        "treatment.**",
        "",
        f"- Working grid: {grid.shape[1]} x {grid.shape[0]} pixels of {grid.pixel_mm:g} mm, axial, HU / 1000 "
        "clipped to [-1, 1], centred on the body, mostly without the table.",
        f"- Seen: {counted(facts['slices'], 'slice')} of {counted(facts['patients'], 'patient')} "
        f"({facts['images_seen']} augmented images).",
    ]
    if "started_from" in facts:
        start = facts["started_from"]
        lines.append(
            f"- Started from the prior `{start['name']}` ({start['hash']}): what it saw, where it fails and its "
            f"attributions hold here too, see [{STARTED_FROM}]({STARTED_FROM})."
        )
    if isinstance(denoiser, PatchEDMDenoiser):
        lines.append(
            f"- Patches of {denoiser.patch} x {denoiser.patch} pixels, {denoiser.grid_shape[0]} x "
            f"{denoiser.grid_shape[1]} of them to a slice; around it up to {denoiser.padding[0]} rows and "
            f"{denoiser.padding[1]} columns of air. Trained on random patches of full, half and quarter side."
        )
    if facts["validation_error"]:
        patients = ", ".join(facts["validation_patients"])
        lines += [
            f"- Validated on slices of {patients}, never seen in training. Mean squared denoising error, "
            "relative to the best constant-gain denoiser (1 = no knowledge of anatomy):",
            "",
            "| noise (HU) | " + " | ".join(f"{1000 * float(k):g}" for k in facts["validation_error"]) + " |",
            "|---|" + "---|" * len(facts["validation_error"]),
            "| error | " + " | ".join(f"{v:.3f}" for v in facts["validation_error"].values()) + " |",
        ]
    if note:
        lines += ["", note.strip()]
    lines += ["", "## Training slices by patient", "", "| patient | slices |", "|---|---|"]
    lines += [f"| {patient} | {count} |" for patient, count in sorted(Counter(data.patients).items())]
    return "\n".join(lines) + "\n"
