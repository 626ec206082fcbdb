"""The worked example of docs/extending.md, run as it is printed there."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from klip_engine import detect
from klip_engine.operators.registry import OPERATORS
from klip_engine.priors import load_prior, save_bundle
from klip_engine.priors.families import FAMILIES, Family
from klip_engine.samplers import SAMPLERS, ItemNoise, Measurement
from klip_engine.volume import CTVolume, Geometry
from klip_engine.working_grid import WorkingGrid

GUIDE = Path(__file__).parents[1] / "docs" / "extending.md"
GRID = WorkingGrid((32, 48), 8.0)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """All names of the example, its files written and imported, its registry lines executed."""
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (OPERATORS, FAMILIES, SAMPLERS):
        for name in ("every-other-row", "tissue-mixture", "ddnm"):
            monkeypatch.delitem(registry, name, raising=False)
    known = {"OPERATORS": OPERATORS, "FAMILIES": FAMILIES, "Family": Family, "SAMPLERS": SAMPLERS}
    added = []
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL):
        title, body = block.split("\n", 1)
        if title == "# registry line":
            assert body.count("\n") == 1, "one line registers it"
            registry, key = re.match(r'(\w+)\["([\w-]+)"\]', body).groups()
            monkeypatch.setitem(known[registry], key, None)  # undone after the test
            exec(body, known)
            added.append(key)
        else:
            (tmp_path / title.removeprefix("# ")).write_text(body, encoding="utf-8")
            module = title.removeprefix("# ").removesuffix(".py")
            monkeypatch.delitem(sys.modules, module, raising=False)
            exec(f"from {module} import *", known)
    assert added == ["every-other-row", "tissue-mixture", "ddnm"]
    return known


@pytest.fixture
def prior(names, tmp_path):
    mixture = names["TissueMixture"](GRID.shape, [0.5, 0.2, 0.3], [-1.0, -0.1, 0.05], [0.01, 0.04, 0.05])
    save_bundle(tmp_path / "tissues", mixture, GRID, training={}, model_card="# Tissues", description="tissues")
    return load_prior(tmp_path / "tissues")


def test_the_operator_and_its_adjoint_agree(names):
    operator = names["EveryOtherRow"]((9, 6))
    x, y = torch.randn(2, 1, 9, 6), torch.randn(2, *operator.measurement_shape)
    torch.testing.assert_close((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum())


def test_the_prior_has_the_posterior_mean_of_its_mixture(prior):
    tissue = prior.denoiser.network
    generator = torch.Generator().manual_seed(0)
    kind = torch.multinomial(tissue.share, 200_000, replacement=True, generator=generator)
    clean = tissue.mean[kind] + tissue.deviation[kind] * torch.randn(len(kind), generator=generator)
    sigma = 0.1
    noisy = clean + sigma * torch.randn(len(kind), generator=generator)
    near = (noisy - 0.0).abs() < 0.01  # draws of x0 given x_t near 0
    result = prior.denoiser.denoise(torch.zeros(1, 1, *GRID.shape), sigma)
    assert float(result.mean[0, 0, 0, 0]) == pytest.approx(float(clean[near].mean()), abs=2e-3)
    assert float(result.log_variance[0, 0, 0, 0].exp()) == pytest.approx(float(clean[near].var()), rel=0.05)


def test_the_sampler_keeps_what_was_measured(names, prior):
    operator = names["EveryOtherRow"](GRID.shape)
    clean = torch.full((1, 1, *GRID.shape), 0.05)
    noise = ItemNoise(0, [(0, 0)], (1, *GRID.shape), "cpu")
    for step in names["DDNM"](steps=8)(prior.denoiser, Measurement(operator, operator.forward(clean), 1e-4), noise):
        torch.testing.assert_close(operator.forward(step.posterior_mean), operator.forward(clean))
    assert len({float(value) for value in step.posterior_mean[0, 0, 1::2].flatten()}) > 1


def test_all_three_detect_together(prior, tmp_path, monkeypatch):
    monkeypatch.setenv("KLIP_CACHE", str(tmp_path / "cache"))
    hu = np.full((2, 32, 48), -1000, np.float32)
    hu[:, 6:26, 8:40] = 50
    hu[1, 14:18, 20:24] = 900  # no tissue of the prior is that dense
    volume = CTVolume(hu, Geometry((48, 32, 2), (8.0, 8.0, 8.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel())))
    choices = {"operator": "every-other-row", "sampler": "ddnm", "score": "klip-variance", "steps": 12}
    detection = detect(volume, prior, samples=1, device="cpu", **choices)
    assert detection.settings["operator"]["name"] == "every-other-row"
    scores = [one.score for one in detection.slices]
    assert scores[1] > 2 * scores[0]
    found = detection.findings[0]
    assert found.slice_range[0] == 1
