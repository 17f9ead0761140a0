"""Draw footage for trying the applications without a camera: ``python footage.py street/ portrait/ [FRAMES]``.

In the street scene a stop sign beside a traffic light comes nearer; in the portrait a drawn face moves through the
picture. The footage contains no photographs, so pictures of it may be published.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from images import save
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, HEIGHT = 640, 360


def draw_street(progress: float) -> np.ndarray:
    """Draw one frame (blue, green, red) of the street.

    Args:
        progress: From 0 to 1: how near the sign is.
    """
    rows = np.linspace(0, 1, HEIGHT)[:, np.newaxis, np.newaxis]
    sky = np.broadcast_to((1 - rows) * (120, 170, 225) + rows * (215, 225, 235), (HEIGHT, WIDTH, 3))
    picture = Image.fromarray(sky.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 250, WIDTH, HEIGHT), fill=(95, 130, 75))
    pen.polygon([(290, 250), (350, 250), (620, HEIGHT), (20, HEIGHT)], fill=(85, 85, 90))
    for near in (0.0, 0.3, 0.65):
        top, bottom = 255 + 100 * near, 262 + 100 * near + 22 * near
        pen.polygon([(318, top), (322, top), (325, bottom), (315, bottom)], fill=(235, 235, 230))
    _draw_traffic_light(pen, 150, 90)
    _draw_stop_sign(pen, 460 + 40 * progress, 170 - 20 * progress, 40 + 35 * progress)
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])


def _draw_stop_sign(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    pen.rectangle((x - radius / 12, y, x + radius / 12, 300), fill=(140, 140, 145))
    for size, colour in ((radius, (245, 245, 245)), (0.93 * radius, (190, 20, 30))):
        turns = [(number + 0.5) * math.pi / 4 for number in range(8)]
        pen.polygon([(x + size * math.cos(turn), y + size * math.sin(turn)) for turn in turns], fill=colour)
    font = ImageFont.load_default(size=0.62 * radius)
    pen.text((x, y), "STOP", fill=(250, 250, 250), font=font, anchor="mm", stroke_width=1, stroke_fill=(250, 250, 250))


def _draw_traffic_light(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    pen.rectangle((x - 4, y, x + 4, 290), fill=(70, 70, 75))
    pen.rounded_rectangle((x - 22, y - 60, x + 22, y + 60), 8, fill=(30, 32, 35))
    for number, colour in enumerate(((225, 40, 35), (70, 60, 20), (20, 60, 35))):
        middle = y - 38 + 38 * number
        pen.ellipse((x - 15, middle - 15, x + 15, middle + 15), fill=colour)


def draw_portrait(progress: float) -> np.ndarray:
    """Draw one frame (blue, green, red) of a face.

    Args:
        progress: From 0 to 1: how far the face has moved to the right.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), (175, 185, 190))
    pen = ImageDraw.Draw(picture)
    x, y, size = 220 + 200 * progress, 180.0, 110.0

    def ellipse(across: float, down: float, width: float, height: float, colour: tuple[int, int, int]) -> None:
        """Draw an ellipse around a point of the face; all lengths are relative to half the face's height."""
        middle, centre = x + across * size, y + down * size
        pen.ellipse(
            (middle - width * size, centre - height * size, middle + width * size, centre + height * size), fill=colour
        )

    skin, shade, hair = (224, 178, 150), (200, 150, 125), (60, 42, 35)
    ellipse(0, 1.75, 1.25, 0.75, (70, 90, 130))
    pen.rectangle((x - 0.3 * size, y + 0.6 * size, x + 0.3 * size, y + 1.2 * size), fill=shade)
    ellipse(0, -0.2, 0.86, 0.95, hair)
    ellipse(0, 0, 0.74, 1.0, skin)
    ellipse(0, -0.82, 0.6, 0.3, hair)
    for side in (-1, 1):
        ellipse(side * 0.3, -0.1, 0.17, 0.1, shade)
        ellipse(side * 0.3, -0.1, 0.14, 0.07, (250, 250, 250))
        ellipse(side * 0.3, -0.1, 0.065, 0.065, (50, 35, 30))
        ellipse(side * 0.3, -0.28, 0.18, 0.035, hair)
    ellipse(0, 0.22, 0.11, 0.16, shade)
    ellipse(0, 0.24, 0.08, 0.1, skin)
    ellipse(0, 0.55, 0.26, 0.07, (170, 80, 80))
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])


def write_footage(draw: Callable[[float], np.ndarray], folder: Path, count: int) -> None:
    """Write ``count`` frames of a scene as images."""
    for number in range(count):
        save(draw(number / max(count - 1, 1)), folder / f"{number:03d}.png")


if __name__ == "__main__":
    frames = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    write_footage(draw_street, Path(sys.argv[1]), frames)
    write_footage(draw_portrait, Path(sys.argv[2]), frames)
