"""What the report says about a scan that was detected on as it was measured: which rays, at what dose."""

from __future__ import annotations

from html import escape
from typing import Any

from klip_engine.detection import Detection

FIRST_IMAGE = "Filtered back-projection"
"""What the report calls the picture in the input's place: projections are no image yet."""
FIRST_IMAGE_MEANING = (
    "Filtered back-projection: a first image of the measurement, for the eye and for the grid; the model looked at "
    "the projections themselves."
)


def is_of_projections(detection: Detection) -> bool:
    """True where the input was no image but what a scanner measured."""
    return "projections" in detection.input


def measured_section(detection: Detection) -> str:
    """HTML of what was measured; empty where the input was an image."""
    if not is_of_projections(detection):
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
        for name, text in _rows(detection.input["projections"])
    )
    return f'<section><h2>What was measured</h2><table class="facts"><tbody>{rows}</tbody></table></section>'


def views_text(known: dict[str, Any]) -> str:
    """How many views there are (`io.projections.facts`); of slices at rest, in each of how many turns."""
    turns = known["geometry"]["table_positions"] or 1
    if turns == 1 or known["views"] % turns:
        return f"{known['views']} views"
    return f"{turns} turns of {known['views'] // turns} views"


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    geometry, detector, dose = facts["geometry"], facts["detector"], facts["dose"]
    rows = [("Rays", f"{_beam(facts['beam'], detector['shape'])}, {views_text(facts)} over {_arc(geometry)}")]
    if geometry["source_to_isocentre_mm"] is not None:
        rows.append(
            (
                "Distances",
                f"source to axis {geometry['source_to_isocentre_mm']:.1f} mm, source to detector "
                f"{geometry['source_to_detector_mm']:.1f} mm",
            )
        )
    rows.append(
        (
            "Detector",
            f"{detector['columns']} columns of {detector['column_pitch_mm']:.3g} mm, {detector['rows']} "
            f"row{'s' if detector['rows'] > 1 else ''}, shifted by {detector['offset_columns']:.3g} columns",
        )
    )
    if geometry["table_feed_mm_per_turn"] is not None and geometry["pitch"] is not None:
        rows.append(
            ("Table", f"{geometry['table_feed_mm_per_turn']:.1f} mm a turn (pitch {geometry['pitch']:.2f})")
        )
    rows.append(("Field of view", f"{facts['field_of_view_mm']:.0f} mm"))
    rows.append(("Dose", _dose(dose)))
    rows.append(("Attenuation of water", f"{facts['mu_water_per_mm']:.4g} per mm"))
    return rows


def _beam(beam: str, shape: str) -> str:
    return "parallel beam" if beam == "parallel" else f"{beam} beam, {shape} detector"


def _arc(geometry: dict[str, Any]) -> str:
    arc = geometry["arc_deg"]
    return f"{arc / 360:.1f} turns" if arc > 361 else f"{arc:.0f} degrees"


def _dose(dose: dict[str, Any]) -> str:
    if dose["photons_in_air"] is None:
        return "photons in air not known"
    text = f"{dose['photons_in_air']:.3g} photons a ray in air"
    sigma = dose["electronic_sigma"]
    return text if sigma is None else f"{text}, electronic noise of {sigma:g} photons"
