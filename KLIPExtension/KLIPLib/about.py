"""The module's help and acknowledgement texts."""

from __future__ import annotations

from slicer.i18n import tr as _

HOMEPAGE = "https://github.com/klip-slicer/SlicerKLIP"
"""The repository's address; a placeholder until it is published."""


def help_text() -> str:
    """What the module's Help section shows."""
    return _("""
<p>Marks what does not belong in a CT scan, without ever having been shown an example of it. A diffusion
model has learned what healthy anatomy looks like. It reconstructs the scan from its own measurement; where that
has to pull hard against the model, the place is suspicious.</p>
<p><b>Research software, not a medical device. It must not be used for diagnosis or treatment: it misses lesions and
marks healthy anatomy.</b></p>
<ol>
<li>Choose a CT volume in Hounsfield units, of any orientation. To try it: module Sample Data, category KLIP.</li>
<li>Set the rate of false alarms: the share of healthy slices on which you accept that something is marked.</li>
<li>Apply. The first time, Slicer asks to install the Python packages that are missing.</li>
<li>Click a finding in the table, or a slice in the curve: the slice views go there. The rate can be changed
afterwards without a new run.</li>
</ol>
<p>More in the <a href="{homepage}/blob/main/docs/slicer.md">documentation</a>.</p>
""").format(homepage=HOMEPAGE)


def acknowledgement_text() -> str:
    """Whose work the module stands on."""
    return _("""
<p>The method is KLIP: localized anomaly detection by the Kullback-Leibler divergence between the prior and the
posterior of a diffusion model (<a href="https://arxiv.org/abs/2605.31596">arXiv 2605.31596</a>). Networks are those
of MONAI.</p>
<p>The demonstration scan and the default prior derive from public CT of The Cancer Imaging Archive (CC BY 3.0 and
4.0); the attributions are in klip_engine/data/demo/README.md and klip_engine/data/priors/default/docs/README.md.
The code is under the Apache License 2.0.</p>
""")
