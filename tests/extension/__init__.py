"""Tests of the module. slicer-core has no slicer.i18n: without an application texts stay as they are."""

import sys
import types

_untranslated = types.ModuleType("slicer.i18n")
_untranslated.tr = lambda text: text  # type: ignore[attr-defined]
sys.modules.setdefault("slicer.i18n", _untranslated)
