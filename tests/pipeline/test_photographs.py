"""Photographs, grey and RGB, through the whole call and the command line, with a Gaussian prior of textures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

from klip_engine import pipeline
from klip_engine.detection import PhotographDetection
from klip_engine.errors import InputError
from klip_engine.io import read_photograph
from klip_engine.photograph import Photograph
from klip_engine.pipeline import detect
from klip_engine.presets import choose_settings
from klip_engine.priors import load_prior, save_bundle
from klip_engine.priors.gaussian import SpectralGaussian
from klip_engine.scoring.klip import ScoreTerm
from klip_engine.slices import NetworkMeter, scanner_and_sampler, score_slices
from klip_engine.volume import CTVolume, Geometry
from tests.conftest import run_cli, torso

SHAPE = (48, 64)
SCAR = (slice(20, 26), slice(30, 44))
QUICK = ["--steps", "5", "--samples", "2", "--score", "klip", "--batch-slices", "20", "--progress", "none"]


@pytest.fixture(autouse=True)
def _short_null(monkeypatch):
    """As many drawn pictures as a rate of 0.05 needs."""
    monkeypatch.setattr(pipeline, "NULL_SLICES_ON_DEMAND", 20)


def textures(count: int, channels: int, seed: int) -> np.ndarray:
    """Smooth random pictures, uint8 [count, h, w, channels]: white noise of which low frequencies are left."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(*(np.fft.fftfreq(n) for n in SHAPE), indexing="ij")
    gain = np.exp(-0.5 * (np.hypot(rows, columns) / 0.06) ** 2)
    noise = np.fft.fft2(rng.normal(size=(count, channels, *SHAPE)))
    smooth = np.fft.ifft2(gain * noise).real
    grey = 127.5 + 35 * smooth / smooth.std()
    return np.moveaxis(grey.clip(0, 255), 1, -1).astype(np.uint8)


@pytest.fixture(scope="module")
def priors(tmp_path_factory) -> dict[int, Path]:
    """Bundles for one and three channels, fitted to such textures."""
    folder = tmp_path_factory.mktemp("photo-priors")
    for channels in (1, 3):
        pictures = torch.from_numpy(np.moveaxis(textures(60, channels, 1) / np.float32(127.5) - 1, -1, 1))
        prior = SpectralGaussian.fitted(pictures.float())
        save_bundle(
            folder / str(channels), prior, None,
            training={"pictures": 60}, model_card="# textures\n", description="textures",
        )  # fmt: skip
    return {channels: folder / str(channels) for channels in (1, 3)}


def picture(channels: int, scar: bool = False) -> np.ndarray:
    pixels = textures(1, channels, 2)[0].copy()
    if scar:
        pixels[SCAR] = np.array([235, 30, 40])[:channels]
    return pixels


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels.squeeze()).save(path, **options)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("preset", ["deblur", "denoise"])
def test_a_photograph_is_restored_better_than_by_the_pseudo_inverse(priors, channels, preset):
    prior = load_prior(priors[channels])
    scanner, sampler = scanner_and_sampler(prior, choose_settings(preset, samples=1))
    images = torch.from_numpy(np.moveaxis(textures(2, channels, 2) / np.float32(127.5) - 1, -1, 1)).contiguous()
    classical = scanner.operator.pseudo_inverse(scanner.measure(images, [0, 1]).data)
    scored = score_slices(
        images, scanner, NetworkMeter(prior.denoiser), sampler, [ScoreTerm()],
        samples=2, seed=0, batch_slices=2, device="cpu",
    )  # fmt: skip
    assert scored.reconstruction.shape == images.shape
    errors = [(one - images).square().mean().sqrt().item() for one in (scored.reconstruction, classical)]
    assert errors[0] < 0.8 * errors[1], errors


@pytest.mark.parametrize("channels", [1, 3])
def test_a_scar_in_a_blurred_photograph_is_found(priors, channels, tmp_path):
    path = save(tmp_path / "photo.png", picture(channels, scar=True))
    settings = {"preset": "deblur", "steps": 6, "score": "klip", "false_alarms": 0.05, "batch_slices": 20}
    detection = detect(path, priors[channels], **settings)
    assert isinstance(detection, PhotographDetection)
    x, y, z = detection.findings[0].centroid_lps_mm
    assert 28 <= x <= 46, (x, y)
    assert 18 <= y <= 28, (x, y)
    assert z == 0
    assert (detection.regions[0][SCAR] == 1).any()
    assert detection.score.shape == (1, *SHAPE)
    assert detection.slices[0].p_value < 0.05
    clean = detect(Photograph(picture(channels)), priors[channels], **settings)
    assert clean.slices[0].score < detection.slices[0].score


@pytest.mark.parametrize("channels", [1, 3])
def test_detect_writes_pictures_in_the_place_of_volumes(priors, capsys, channels, tmp_path):
    source, out = save(tmp_path / "photo.png", picture(channels, scar=True)), tmp_path / "out"
    arguments = ["--prior", priors[channels], "--preset", "deblur", *QUICK]
    code, _, err = run_cli(capsys, "detect", source, "-o", out, *arguments)
    assert code == 0, err
    assert {p.name for p in out.iterdir()} == {
        "reconstruction.png", "klip.nrrd", "klip-working.nrrd", "regions.png", "findings.json", "findings.csv",
        "report.html",
    }  # fmt: skip
    with Image.open(out / "reconstruction.png") as reconstruction, Image.open(out / "regions.png") as regions:
        assert reconstruction.mode == {1: "L", 3: "RGB"}[channels]
        assert reconstruction.size == regions.size == SHAPE[::-1]
        labels = np.asarray(regions)
        assert regions.mode == "I;16"
    assert sitk.ReadImage(out / "klip.nrrd").GetPixelID() == sitk.sitkFloat32
    findings = json.loads((out / "findings.json").read_text())
    assert findings["schema"] == "klip-findings/1"
    assert findings["input"]["channels"] == channels
    assert labels.max() == len(findings["findings"]) >= 1
    for finding in findings["findings"]:
        assert 1000 * finding["volume_ml"] == pytest.approx((labels == finding["label"]).sum())
    code, _, err = run_cli(capsys, "detect", source, "-o", out, *arguments)
    assert code == 0, err  # an earlier result is replaced


def test_the_report_holds_the_picture_as_given_and_numbers_its_findings(priors, tmp_path):
    from klip_engine.io.photograph_report import render_photograph_report

    detection = detect(
        Photograph(picture(3, scar=True)), priors[3], preset="deblur", steps=5, score="klip", batch_slices=20
    )
    html = render_photograph_report(detection)
    assert html.count("data:image/png") == 4
    assert "<script" not in html
    assert f"{len(detection.findings)} suspicious region" in html
    assert "left:" in html


def test_the_default_score_and_a_calibrated_null_serve_photographs_too(priors, capsys, tmp_path):
    import shutil

    bundle = tmp_path / "bundle"
    shutil.copytree(priors[3], bundle)
    settings = ["--preset", "denoise", "--steps", "6", "--score", "klip-coherent"]
    code, _, err = run_cli(capsys, "calibrate", bundle, "--slices", "12", *settings, "--progress", "none")
    assert code == 0, err
    detection = detect(
        Photograph(picture(3)), bundle, preset="denoise", steps=6, score="klip-coherent", false_alarms=0.2
    )
    assert not any("No null distribution" in notice for notice in detection.notices)


def test_values_go_from_0_255_to_the_priors_range_and_back():
    from klip_engine.photograph import WorkingPhotograph

    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 15
    working = WorkingPhotograph(Photograph(pixels))
    assert working.images.shape == (1, 3, 2, 3)
    assert working.images.min() == -1.0
    np.testing.assert_allclose(working.values_of(working.images)[0], pixels, atol=1e-4)
    assert WorkingPhotograph(Photograph(np.full((2, 2, 1), 255, np.uint8))).images.max() == 1.0


@pytest.mark.parametrize(
    ("name", "options"), [("a.png", {}), ("a.tif", {}), ("a.jpg", {"quality": 100, "subsampling": 0})]
)
def test_every_format_gives_the_same_picture(name, options, tmp_path):
    pixels = picture(3)
    loaded = read_photograph(save(tmp_path / name, pixels, **options))
    np.testing.assert_allclose(loaded.photograph.pixels.astype(int), pixels, atol=6 if name == "a.jpg" else 0)
    assert loaded.description["size"] == [SHAPE[1], SHAPE[0]]


def test_a_turned_photograph_is_read_upright(tmp_path):
    pixels, exif = picture(3), Image.Exif()
    exif[0x0112] = 6  # "row 0 is the visual right side"
    loaded = read_photograph(save(tmp_path / "turned.png", pixels, exif=exif))
    np.testing.assert_array_equal(loaded.photograph.pixels, np.rot90(pixels, -1))


# --- bad input


def _wrong_size(folder: Path) -> Path:
    return save(folder / "photo.png", picture(3)[:-1])


def _rgba(folder: Path) -> Path:
    return save(folder / "photo.png", np.full((*SHAPE, 4), 90, np.uint8))


def _palette_with_transparency(folder: Path) -> Path:
    image = Image.fromarray(picture(3)).convert("P")
    image.save(folder / "photo.png", transparency=0)
    return folder / "photo.png"


def _sixteen_bits(folder: Path) -> Path:
    return save(folder / "photo.png", np.full(SHAPE, 9000, np.uint16))


def _sixteen_bit_rgb(folder: Path) -> Path:
    image = sitk.GetImageFromArray(np.full((*SHAPE, 3), 9000, np.uint16), isVector=True)
    sitk.WriteImage(image, folder / "photo.png")
    return folder / "photo.png"


def _corrupt(folder: Path) -> Path:
    path = save(folder / "photo.png", picture(3))
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def _damaged_start(folder: Path) -> Path:
    path = save(folder / "photo.png", picture(3))
    path.write_bytes(b"\0" * 8 + path.read_bytes()[8:])
    return path


def _cmyk(folder: Path) -> Path:
    Image.fromarray(picture(3)).convert("CMYK").save(folder / "photo.jpg")
    return folder / "photo.jpg"


def _pages(folder: Path) -> Path:
    page = Image.fromarray(picture(3))
    page.save(folder / "photo.tif", save_all=True, append_images=[page])
    return folder / "photo.tif"


def _volume(folder: Path) -> Path:
    sitk.WriteImage(Geometry((120, 96, 3), (4.0, 4.0, 5.0)).image(torso(3)), folder / "photo.nrrd")
    return folder / "photo.nrrd"


def _grey(folder: Path) -> Path:
    return save(folder / "photo.png", picture(1))


BAD_PHOTOGRAPHS = {
    "wrong size": (_wrong_size, "64 x 47"),
    "grey into an RGB prior": (_grey, "(grey), but the prior '3' is of 64 x 48 pixels (RGB)"),
    "RGBA": (_rgba, "alpha"),
    "palette with transparency": (_palette_with_transparency, "alpha"),
    "16 bits": (_sixteen_bits, "8 bits"),
    "16 bits RGB": (_sixteen_bit_rgb, "8 bits"),
    "corrupt": (_corrupt, "damaged"),
    "damaged start": (_damaged_start, "damaged"),
    "CMYK": (_cmyk, "CMYK"),
    "several pages": (_pages, "several"),
    "a CT volume": (_volume, "not a PNG"),
    "no such file": (lambda folder: folder / "photo.png", "no such file"),
    "a folder": (lambda folder: folder, "prior"),
}


@pytest.mark.parametrize("kind", BAD_PHOTOGRAPHS)
def test_bad_photographs_are_exit_code_3_one_sentence_and_no_files(kind, priors, capsys, tmp_path):
    make, words = BAD_PHOTOGRAPHS[kind]
    (tmp_path / "in").mkdir()
    code, out, err = run_cli(
        capsys, "detect", make(tmp_path / "in"), "-o", tmp_path / "out", "--prior", priors[3], *QUICK
    )
    assert code == 3, err
    assert out == ""
    assert len(err.strip().splitlines()) == 1
    assert words in err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_rgb_into_a_grey_prior_is_bad_input_that_names_both(priors, capsys, tmp_path):
    source = save(tmp_path / "photo.png", picture(3))
    code, _, err = run_cli(capsys, "detect", source, "-o", tmp_path / "out", "--prior", priors[1], *QUICK)
    assert code == 3
    assert "64 x 48 pixels (RGB), but the prior '1' is of 64 x 48 pixels (grey)" in err


@pytest.mark.parametrize("channels", [1, 3])
def test_a_photograph_with_a_prior_of_ct_is_refused_as_not_ct(prior, capsys, channels, tmp_path):
    source = save(tmp_path / "photo.png", picture(channels))
    code, _, err = run_cli(capsys, "detect", source, "-o", tmp_path / "out", "--prior", prior, *QUICK)
    assert code == 3
    assert "a prior of photographs" in err


def test_arrays_of_the_other_kind_are_refused_in_python_too(prior, priors):
    with pytest.raises(InputError, match="is of photographs"):
        detect(CTVolume(torso(3), Geometry((120, 96, 3), (4.0, 4.0, 5.0))), priors[3])
    with pytest.raises(InputError, match="is of CT"):
        detect(Photograph(picture(3)), prior)
    with pytest.raises(InputError, match="uint8"):
        Photograph(np.zeros(SHAPE, np.float32))


def test_a_series_of_a_photograph_is_a_usage_error(priors, capsys, tmp_path):
    source = save(tmp_path / "photo.png", picture(3))
    code, _, err = run_cli(
        capsys, "detect", source, "-o", tmp_path / "out", "--prior", priors[3], "--series", "1", *QUICK
    )
    assert code == 2
    assert "series" in err


def test_what_needs_ct_refuses_a_prior_of_photographs(priors, capsys, tmp_path):
    sitk.WriteImage(Geometry((120, 96, 3), (4.0, 4.0, 5.0)).image(torso(3)), tmp_path / "ct.nrrd")
    code, _, err = run_cli(
        capsys, "evaluate", tmp_path / "ct.nrrd", "--json", tmp_path / "a.json", "--prior", priors[1], "--preset",
        "denoise", "--progress", "none", "--baselines", "none",
    )  # fmt: skip
    assert code == 3
    assert "not of CT" in err
