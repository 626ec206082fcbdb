"""The place of a result in the subject hierarchy: one folder beside its input, in the input's study."""

from __future__ import annotations

from typing import Any

import slicer

from .result_nodes import RESULT, SHOWN


def add_folder(result: Any, name: str, input_node: Any) -> None:
    """Put the nodes of a result into a new folder below the item above the input (its study, where it has one)."""
    hierarchy = _hierarchy(result.scene)
    item = hierarchy.GetItemByDataNode(input_node) if input_node is not None else 0
    parent = hierarchy.GetItemParent(item) if item else hierarchy.GetSceneItemID()
    folder = hierarchy.CreateFolderItem(parent, name)
    hierarchy.SetItemAttribute(folder, RESULT, result.key)
    for role in SHOWN:
        node = result.nodes[role]
        child = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(folder, node)
        hierarchy.SetItemParent(child, folder)


def folder_item(result: Any) -> int:
    """The item of the folder of a result; 0 where the user removed it."""
    hierarchy = _hierarchy(result.scene)
    for item in _all_items(hierarchy):
        if hierarchy.GetItemAttribute(item, RESULT) == result.key and hierarchy.GetItemDataNode(item) is None:
            return item
    return 0


def remove_items(result: Any) -> None:
    """Remove the folder and the items of the nodes; nodes, and what the user put into the folder, stay."""
    hierarchy = _hierarchy(result.scene)
    folder = folder_item(result)
    for role in SHOWN:
        item = hierarchy.GetItemByDataNode(result.nodes[role]) if role in result.nodes else 0
        if item:
            hierarchy.RemoveItem(item, False, True)
    if folder:
        for item in _items_below(hierarchy, folder, False):
            hierarchy.SetItemParent(item, hierarchy.GetItemParent(folder))
        hierarchy.RemoveItem(folder, False, False)


def _hierarchy(scene: Any) -> Any:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def _all_items(hierarchy: Any) -> list[int]:
    return _items_below(hierarchy, hierarchy.GetSceneItemID(), True)


def _items_below(hierarchy: Any, item: int, recursive: bool) -> list[int]:
    import vtk

    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(item, items, recursive)
    return [items.GetId(index) for index in range(items.GetNumberOfIds())]
