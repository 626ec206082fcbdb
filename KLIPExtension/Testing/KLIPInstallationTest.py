"""What an installed KLIP must have, looked at inside Slicer: by ctest, or from the Python console with

    import slicer.testing; slicer.testing.runUnitTest([FOLDER_OF_THIS_FILE], "KLIPInstallationTest")

Nothing is downloaded or installed. KLIPTest in KLIP.py tests the module's work.
"""

import unittest
from pathlib import Path

import slicer


class KLIPInstallationTest(unittest.TestCase):
    """The module, the engine beside it, its data, its sample."""

    def setUp(self):
        slicer.mrmlScene.Clear(False)

    def test_slicer_found_the_module(self):
        self.assertTrue(hasattr(slicer.modules, "klip"))
        self.assertFalse(slicer.modules.klip.icon.isNull())
        self.assertTrue(slicer.modules.klip.helpText.strip())

    def test_the_engine_and_its_data_are_there(self):
        import klip_engine

        data = Path(klip_engine.__file__).resolve().parent / "data"
        for file in (
            "demo/demo_ct.nrrd",
            "priors/default/models/model.safetensors",
            "priors/default/docs/README.md",
        ):
            self.assertTrue((data / file).is_file(), file)

    def test_the_engine_starts_no_network_when_it_is_imported(self):
        import shutil
        import subprocess

        code = "import sys, klip_engine; sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
        program = shutil.which("PythonSlicer")
        environment = slicer.util.startupEnvironment() | {"PYTHONPATH": self._module_folder()}
        self.assertEqual(subprocess.run([program, "-c", code], env=environment, check=False).returncode, 0)

    def test_slicer_reads_the_requirements(self):
        import slicer.packaging
        from KLIPLib.dependencies import REQUIREMENTS, requirements

        self.assertEqual(
            [str(one) for one in slicer.packaging.load_requirements(REQUIREMENTS)],
            [str(one) for one in requirements()],
        )

    def test_nothing_slicer_brings_would_be_replaced(self):
        from KLIPLib.dependencies import missing_requirements

        self.assertEqual(missing_requirements().unsuitable, ())

    def test_the_sample_loads_without_a_download(self):
        import SampleData
        from KLIPLib.sample_data import NODE_NAME, SAMPLE_NAME

        volume = SampleData.SampleDataLogic().downloadSample(SAMPLE_NAME)
        self.assertEqual(volume.GetName(), NODE_NAME)
        self.assertEqual(volume.GetImageData().GetDimensions(), (221, 175, 24))

    @staticmethod
    def _module_folder():
        return str(Path(slicer.modules.klip.path).resolve().parent)
