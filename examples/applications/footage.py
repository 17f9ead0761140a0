"""Draws footage of a street, so that the applications can be tried without a camera: ``python footage.py frames/``.

A stop sign comes nearer beside a traffic light. Nothing in it is a photograph, so pictures of it may be published.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from images import save
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 640, 360


def draw_street(progress: float) -> np.ndarray:
    """One frame (blue, green, red).

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


def write_footage(folder: Path, count: int) -> None:
    for number in range(count):
        save(draw_street(number / max(count - 1, 1)), folder / f"{number:03d}.png")


if __name__ == "__main__":
    write_footage(Path(sys.argv[1]), 20)
