"""Brings a result of the engine into a scene, whole or not at all, and takes it out again."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from .chart import fill_chart
from .colours import ScoreScale, fill_region_colours, fill_score_colours, score_scale
from .display import hide
from .geometry import LPS_RAS, Placement, placement
from .hierarchy import add_folder, remove_items
from .marking import mark
from .result_nodes import (
    CLASSES,
    DESCRIPTION,
    DOCUMENT,
    RUN_TO_LOCAL,
    ScanResult,
    add_node,
    document_hash,
    find_results,
    remove_nodes,
    undone_on_failure,
)
from .segments import make_surfaces, show_segmentation
from .volumes import read_map, set_image, show_as_ct, show_as_heat_map, show_as_labels

__all__ = ["ScanResult", "find_results", "import_results", "remove_results"]

_NAMES = {
    "reconstruction": "KLIP reconstruction",
    "score": "KLIP score",
    "regions": "KLIP regions",
    "segmentation": "KLIP findings",
    "findings": "KLIP findings table",
    "slices": "KLIP slice scores",
    "curve": "KLIP score of slices",
    "threshold": "KLIP threshold",
    "marks": "KLIP findings on the curve",
    "chart": "KLIP slice-score curve",
    "score_colours": "KLIP score colours",
    "region_colours": "KLIP region colours",
}
_FILES = (("score", "klip.nrrd"), ("reconstruction", "reconstruction.nrrd"), ("regions", "regions.nrrd"))


def import_results(
    scene: Any, folder: str | Path, input_node: Any = None, *, name: str | None = None, surfaces: bool = True
) -> ScanResult:
    """Add what `klip-engine detect` wrote to `folder` to a scene, on the grid and below the transform of its input.

    input_node: the volume it was computed from, None for projections; name: what the nodes are called after
    (default: the input node's name); surfaces: make closed surfaces of the findings now, for 3D views.
    When anything fails the scene is as before. Raises InputError where the folder holds no complete result of a
    CT, or one of another volume.
    """
    result = ScanResult(scene, uuid.uuid4().hex, Path(folder))
    document = result.saved.document
    geometry = result.saved.geometry
    place = placement(input_node, LPS_RAS @ geometry.matrix, geometry.size)
    base = name or (input_node.GetName() if input_node is not None else _("Projections"))
    facts = _facts(document, place) | {DOCUMENT: document_hash(result.folder)}
    with undone_on_failure(result, remove_results):
        for role in CLASSES:
            add_node(result, role, f"{base} {_NAMES[role]}", facts, input_node)
        _fill(result, document, place, score_scale(document), input_node)
        if surfaces:
            make_surfaces(result.segmentation)
        fill_chart(result, _("{name}: score of each slice").format(name=base))
        add_folder(result, _("KLIP results ({name})").format(name=base), input_node)
    return result


def remove_results(result: ScanResult) -> None:
    """Take a result out of its scene: nodes, folder, and its layers in slice views. Its files stay."""
    hide(result)
    remove_items(result)
    remove_nodes(result)


def _fill(
    result: ScanResult, document: dict[str, Any], place: Placement, scale: ScoreScale, input_node: Any
) -> None:
    """Displays before voxels: a display that finds voxels first looks through all of them for a window of its own.

    The score before the other volumes: it is the largest, and the copy it is read from is gone when they come.
    """
    fill_score_colours(result.score_colours)
    fill_region_colours(result.region_colours, (), ())
    show_as_heat_map(result.score, result.score_colours, scale)
    show_as_ct(result.reconstruction, input_node)
    show_as_labels(result.regions, result.region_colours)
    size = result.saved.geometry.size
    for role, file in _FILES:
        set_image(result.nodes[role], read_map(result.folder / file, size), place)
    show_segmentation(result.segmentation, result.regions)
    mark(
        result,
        None,
        document["findings"],
        document["slices"],
        scale,
        threshold=document["threshold"],
        false_alarms=document["settings"]["false_alarms"],
    )


def _description(document: dict[str, Any]) -> str:
    """What the subject hierarchy and the Data module show for a node: the notice first, then what computed it."""
    prior = document["prior"]
    return (
        f"{document['notice']} Computed by klip-engine {document['engine']} "
        f"with the prior {prior['name']} ({prior['hash']})."
    )


def _facts(document: dict[str, Any], place: Placement) -> dict[str, str]:
    """Attributes of every node: what ran must be readable from what came out."""
    notices = list(document.get("notices", ()))
    if place.moved:
        notices.append(_("The volume was moved after the run: the results lie where it was."))
    return {
        DESCRIPTION: _description(document),
        "KLIP.Notice": document["notice"],
        "KLIP.Notices": json.dumps(notices),
        "KLIP.Engine": document["engine"],
        "KLIP.Prior": json.dumps(document["prior"]),
        "KLIP.Settings": json.dumps(document["settings"]),
        RUN_TO_LOCAL: json.dumps(place.run_to_local.tolist()),
    }
