"""The nodes of one result, and how they are found again in a scene that was saved and read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import slicer

RESULT = "KLIP.Result"
"""Attribute of every node of a result: which result it belongs to."""
ROLE = "KLIP.Role"
"""Attribute of every node of a result: what it is there, a key of `CLASSES`."""
FOLDER = "KLIP.ResultFolder"
"""Attribute of every node of a result: the folder the engine wrote."""
DESCRIPTION = "KLIP.Description"
"""Attribute of every node of a result: its description too, the notice and what computed it."""
DOCUMENT = "KLIP.Document"
"""Attribute of every node of a result: SHA-256 of the findings.json it was made from."""
RUN_TO_LOCAL = "KLIP.RunToLocal"
"""Attribute of every node of a result: 4 x 4 as JSON, from RAS of the world during the run to RAS of the nodes."""
INPUT = "KLIP.Input"
"""Role of the node reference from every node of a result to the volume it was computed from."""

CLASSES = {
    "score_colours": "vtkMRMLColorTableNode",
    "region_colours": "vtkMRMLColorTableNode",
    "reconstruction": "vtkMRMLScalarVolumeNode",
    "score": "vtkMRMLScalarVolumeNode",
    "regions": "vtkMRMLLabelMapVolumeNode",
    "segmentation": "vtkMRMLSegmentationNode",
    "findings": "vtkMRMLTableNode",
    "slices": "vtkMRMLTableNode",
    "curve": "vtkMRMLPlotSeriesNode",
    "threshold": "vtkMRMLPlotSeriesNode",
    "marks": "vtkMRMLPlotSeriesNode",
    "chart": "vtkMRMLPlotChartNode",
}
SHOWN = ("reconstruction", "score", "regions", "segmentation", "findings", "slices", "chart")
"""What is listed in the subject hierarchy, in this order; the rest serves these."""


@dataclass
class ScanResult:
    """One result in a scene: a node per role (see `CLASSES`), as attributes.

    key: the value of the attribute KLIP.Result on its nodes; folder: what the engine wrote.
    """

    scene: Any
    key: str
    folder: Path
    nodes: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, role: str) -> Any:
        """The node of a role."""
        try:
            return self.__dict__["nodes"][role]
        except KeyError:
            raise AttributeError(f"a result has no {role}") from None

    @property
    def input_node(self) -> Any:
        """The volume the result was computed from; None where there was none or it is gone."""
        return self.nodes["regions"].GetNodeReference(INPUT)

    @cached_property
    def saved(self) -> Any:
        """The engine's `SavedResults` of the folder.

        Raises InputError when the folder is gone or damaged, or holds the results of another run by now.
        """
        from klip_engine.errors import InputError
        from klip_engine.saved import open_results  # at first use: the start of Slicer does not wait for it

        saved = open_results(self.folder)
        node = self.nodes.get("regions")
        if node is not None and node.GetAttribute(DOCUMENT) not in (None, document_hash(self.folder)):
            raise InputError(f"{self.folder} holds the results of another run by now; run the detection again")
        return saved


def document_hash(folder: Path) -> str:
    """Which results a folder holds."""
    return hashlib.sha256((folder / "findings.json").read_bytes()).hexdigest()


def find_results(scene: Any) -> list[ScanResult]:
    """All complete results of a scene, in the order they were added; also after it was saved and read."""
    found: dict[str, ScanResult] = {}
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        key, role = node.GetAttribute(RESULT), node.GetAttribute(ROLE)
        if key and role in CLASSES:
            result = found.setdefault(key, ScanResult(scene, key, Path(node.GetAttribute(FOLDER) or "")))
            result.nodes[role] = node
    return [result for result in found.values() if result.nodes.keys() == CLASSES.keys()]


@contextmanager
def undone_on_failure(result: ScanResult, undo: Callable[[ScanResult], None]) -> Iterator[None]:
    """Fill a result in the block; when that fails, for whatever reason, it is undone."""
    try:
        yield
    except BaseException:
        undo(result)
        raise


def add_node(result: ScanResult, role: str, name: str, facts: dict[str, str], input_node: Any) -> Any:
    """Add the node of a role to the scene, with its attributes (`facts`) in place before it is seen."""
    node = getattr(slicer, CLASSES[role])()
    node.SetName(result.scene.GenerateUniqueName(name))
    for attribute, value in {RESULT: result.key, ROLE: role, FOLDER: str(result.folder)}.items():
        node.SetAttribute(attribute, value)
    for attribute, value in facts.items():
        node.SetAttribute(attribute, value)
    node.SetDescription(facts[DESCRIPTION])
    if input_node is not None:
        node.SetNodeReferenceID(INPUT, input_node.GetID())
    result.nodes[role] = result.scene.AddNode(node)
    return result.nodes[role]


def remove_nodes(result: ScanResult) -> None:
    """Remove the nodes of a result, with what displays and stores them, last added first."""
    for node in reversed(list(result.nodes.values())):
        for companion in [*_companions(node), node]:
            if companion is not None and result.scene.IsNodePresent(companion):
                result.scene.RemoveNode(companion)
    result.nodes.clear()


def _companions(node: Any) -> list[Any]:
    """Its display and storage nodes: a scene does not remove them with their node."""
    companions = []
    if hasattr(node, "GetNumberOfDisplayNodes"):
        companions += [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
    if hasattr(node, "GetNumberOfStorageNodes"):
        companions += [node.GetNthStorageNode(i) for i in range(node.GetNumberOfStorageNodes())]
    return companions
