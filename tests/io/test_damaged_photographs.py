"""Photographs damaged byte by byte are bad input by name, whatever Pillow's readers trip over."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from klip_engine.errors import InputError
from klip_engine.io import photographs
from klip_engine.io.photographs import read_photograph


def picture(path: Path, file_format: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x8769] = {0x9003: "2020"}
    options = {"compression": "tiff_lzw"} if file_format == "TIFF" else {"exif": exif}
    Image.fromarray(pixels).save(path, file_format, **options)
    return path.read_bytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", photographs.FORMATS)
def test_any_damage_is_bad_input_or_harmless(tmp_path, file_format):
    path = tmp_path / "photo"
    whole = picture(path, file_format)
    read_photograph(path)
    chance = random.Random(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 2, 8])):
            ends = chance.choice([range(200), range(len(damaged) - 200, len(damaged)), range(len(damaged))])
            damaged[chance.choice(ends)] = chance.randrange(256)
        path.write_bytes(damaged[: chance.choice([len(damaged)] * 6 + [chance.randrange(len(damaged))])])
        try:
            read_photograph(path)
        except InputError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("raised", [TypeError, LookupError, OverflowError, EOFError, photographs.struct.error])
def test_what_pillow_raises_while_it_decodes_is_damage(tmp_path, monkeypatch, raised):
    picture(tmp_path / "photo.jpg", "JPEG")

    def fails(*_):
        raise raised("")

    monkeypatch.setattr(photographs.ImageOps, "exif_transpose", fails)
    with pytest.raises(InputError, match="damaged or incomplete"):
        read_photograph(tmp_path / "photo.jpg")
