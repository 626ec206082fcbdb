"""Draws the pictures of the Slicer module: KLIP.png (icon) and SampleData.png (thumbnail of the demo scan).

    python docs/images/make_icons.py

Everything is drawn here but the thumbnail's CT: the demo scan of the engine, its inserted nodule ringed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw, ImageFilter

ROOT = Path(__file__).resolve().parents[2]
ICONS = ROOT / "KLIPExtension" / "Resources" / "Icons"
DEMO = ROOT / "klip_engine" / "data" / "demo"

SIZE, FINE = 128, 8
"""Pixels of the icon, and how many times finer it is drawn before it is scaled down."""
NIGHT, BODY, LUNG = (18, 32, 56), (196, 206, 220), (30, 46, 76)
HEART, BONE = (196, 206, 220), (255, 255, 255)
SPINE = ((56, 84), (50, 92), (60, 91), (64, 103), (68, 91), (78, 92), (72, 84))
"""A vertebra's arch and processes, in pixels of the icon."""
GLOW = ((255, 120, 20), (255, 176, 32), (255, 240, 150))
RING = (255, 150, 30)


def main() -> None:
    """Write both into Resources/Icons."""
    ICONS.mkdir(parents=True, exist_ok=True)
    icon().save(ICONS / "KLIP.png", optimize=True)
    thumbnail().save(ICONS / "SampleData.png", optimize=True)


def icon() -> Image.Image:
    """A torso in cross-section with two lungs; in one of them something glows that does not belong there."""
    edge = SIZE * FINE
    picture = Image.new("RGBA", (edge, edge), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle(_box(64, 64, 62, 62), radius=24 * FINE, fill=NIGHT)
    draw.ellipse(_box(64, 64, 55, 43), fill=BODY)
    for side in (-1, 1):
        draw.ellipse(_box(64 + side * 27, 64, 22, 31), fill=LUNG)
    draw.ellipse(_box(72, 52, 20, 18), fill=HEART)
    draw.ellipse(_box(64, 80, 12, 10), fill=HEART)
    draw.polygon([(x * FINE, y * FINE) for x, y in SPINE], fill=BONE)
    draw.ellipse(_box(64, 82, 8, 7), fill=BONE)
    picture = _glow(picture, 37, 72)
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def thumbnail() -> Image.Image:
    """The slice through the middle of the inserted nodule, soft window on lung, the nodule ringed; 260 x 280."""
    scan = sitk.ReadImage(str(DEMO / "demo_ct.nrrd"))
    truth = json.loads((DEMO / "demo_truth.json").read_text(encoding="utf-8"))
    column, row, slice_number = scan.TransformPhysicalPointToContinuousIndex(truth["centre_lps_mm"])
    hu = sitk.GetArrayFromImage(scan)[round(slice_number)].astype(np.float32)
    grey = np.uint8(255 * ((hu + 1100) / 1500).clip(0, 1))
    width, height = 260, 280
    scale = width / grey.shape[1]
    slice_picture = Image.fromarray(grey).resize((width, round(grey.shape[0] * scale)), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (width, height), "black")
    top = (height - slice_picture.height) // 2
    picture.paste(slice_picture, (0, top))
    x, y = (column + 0.5) * scale, (row + 0.5) * scale + top
    radius = 1.1 * max(truth["diameters_mm"]) / scan.GetSpacing()[0] * scale
    return _ring(picture, x, y, radius)


def _box(x: float, y: float, half_width: float, half_height: float) -> tuple[float, float, float, float]:
    """Corners of an ellipse or rectangle on the fine grid, from pixels of the icon."""
    return (
        (x - half_width) * FINE,
        (y - half_height) * FINE,
        (x + half_width) * FINE,
        (y + half_height) * FINE,
    )


def _glow(picture: Image.Image, x: float, y: float) -> Image.Image:
    """A soft halo and a bright core."""
    halo = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    ImageDraw.Draw(halo).ellipse(_box(x, y, 16, 16), fill=(*GLOW[0], 220))
    picture = Image.alpha_composite(picture, halo.filter(ImageFilter.GaussianBlur(4 * FINE)))
    draw = ImageDraw.Draw(picture)
    for radius, colour in zip((13.5, 10, 5), GLOW, strict=True):
        draw.ellipse(_box(x, y, radius, radius), fill=colour)
    return picture


def _ring(picture: Image.Image, x: float, y: float, radius: float) -> Image.Image:
    """The picture with a smooth ring, drawn four times finer."""
    fine = 4
    overlay = Image.new("RGBA", (picture.width * fine, picture.height * fine), (0, 0, 0, 0))
    corners = [fine * v for v in (x - radius, y - radius, x + radius, y + radius)]
    ImageDraw.Draw(overlay).ellipse(corners, outline=(*RING, 255), width=3 * fine)
    overlay = overlay.resize(picture.size, Image.Resampling.LANCZOS)
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


if __name__ == "__main__":
    main()
