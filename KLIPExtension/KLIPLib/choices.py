"""What can be chosen under Advanced, in the words of the panel.

The names are the engine's; they are written out because asking the engine would load PyTorch into Slicer.
"""

from __future__ import annotations

from slicer.i18n import tr as _

Choices = list[tuple[str, str]]
"""(what is shown, what the engine is told); an empty text leaves it to the engine."""


def presets() -> Choices:
    """Settings to start from."""
    return [
        (_("Default: the image itself"), ""),
        (_("Fast: half the noise levels"), "fast"),
        (_("24 parallel views"), "sparse-24"),
        (_("24 fan views"), "fan-24"),
        (_("Limited angle (120°)"), "limited-angle"),
        (_("Low dose"), "low-dose"),
        (_("Deblur"), "deblur"),
        (_("Denoise"), "denoise"),
        (_("KLIP paper: predictor-corrector (slow)"), "klip-pc"),
        (_("KLIP paper: PaDIS (slow)"), "klip-padis"),
        (_("KLIP paper: DDPM, deblurring (slow)"), "klip-ddpm-deblur"),
    ]


def operators() -> Choices:
    """What is measured, where the input is a volume."""
    return [
        (_("As the preset says"), ""),
        (_("The image itself"), "identity"),
        (_("CT scan, parallel beam"), "parallel"),
        (_("CT scan, fan beam, flat detector"), "fan-flat"),
        (_("CT scan, fan beam, curved detector"), "fan-curved"),
        (_("Blur"), "blur"),
    ]


def samplers() -> Choices:
    """How the posterior is sampled."""
    return [
        (_("As the preset says"), ""),
        ("DDS", "dds"),
        ("DPS", "dps"),
        ("PaDIS", "padis"),
        (_("Predictor-corrector"), "pc"),
        ("DDPM", "ddpm"),
    ]


def devices() -> Choices:
    """Where the networks run."""
    return [(_("Automatic"), ""), (_("Processor (CPU)"), "cpu"), (_("Graphics card (CUDA)"), "cuda")]
