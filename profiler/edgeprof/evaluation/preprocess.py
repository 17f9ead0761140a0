"""Preprocessing that is declared, applied in one fixed order, hashed, and never guessed.

Each step is applied only if it is declared, in this order:

1. ``shape``: each sample is reshaped to this shape (raw bytes have none);
2. images: ``channels`` (rgb, bgr or grey), ``crop_fraction`` (centre), ``resize`` (exact), ``resize_short`` (shorter
   side) or ``letterbox`` (the longer side fits, grey bars fill the rest), ``crop`` (centre, pixels);
3. numbers: y = (x · ``scale`` − ``mean``) / ``std``, the last two per channel or one for all;
4. ``layout``: from height × width (× channels), as images are stored, to NCHW or NHWC;
5. ``dtype``, or ``quantise=input``: q = round(y / s) + z with scale s and zero point z of the model's own input.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof.errors import InputError, unknown
from edgeprof.evaluation.resize import resize_bilinear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

_DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64")

#: The types of images; arrays of other types are not images.
_PIXELS = ("uint8", "uint16", "int32", "float32")


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing of a sample; the module's docstring gives the order of the steps.

    Attributes:
        channels: ``rgb``, ``bgr`` or ``grey``; images are decoded to rgb.
        crop_fraction: Central share of height and width that is kept, 0 to 1.
        resize: Height and width in pixels, bilinear.
        resize_short: The shorter side in pixels, bilinear, keeping the aspect ratio.
        letterbox: Height and width into which the whole image is fitted, bilinear, keeping the aspect ratio, centred on
            grey 114, as in the training of YOLO detectors.
        crop: Height and width of the centre that is kept, in pixels.
        shape: The shape of one sample.
        scale: Factor.
        mean: Subtracted after ``scale``; one value, or one per channel.
        std: Divisor after ``mean``; one value, or one per channel.
        layout: ``NCHW`` or ``NHWC``.
        dtype: numpy's name of the type.
        quantise: ``input`` or None.
    """

    channels: str | None = None
    crop_fraction: float | None = None
    resize: tuple[int, int] | None = None
    resize_short: int | None = None
    letterbox: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    shape: tuple[int, ...] | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    layout: str | None = None
    dtype: str | None = None
    quantise: str | None = None

    @property
    def declared(self) -> dict[str, Any]:
        """The declared steps."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def digest(self) -> str:
        return digest(self.declared)

    @property
    def touches_pixels(self) -> bool:
        return any((self.crop_fraction, self.resize, self.resize_short, self.letterbox, self.crop))

    def sample(self, pixels: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
        """Apply steps 1 and 2 to one sample; images are ``(height, width)`` or ``(height, width, 3)`` of a number type.

        Raises:
            InputError: A declared step does not fit the sample.
        """
        if self.shape is not None:
            if pixels.size != math.prod(self.shape):
                raise InputError(
                    f"{source} has {pixels.size} values, which do not make {'x'.join(map(str, self.shape))}",
                    remedy="Declare the true shape: --preprocess shape=…",
                )
            pixels = pixels.reshape(self.shape)
        if self.channels is not None:
            pixels = _change_colours(pixels, self.channels, source)
        if not self.touches_pixels:
            return pixels
        if pixels.dtype.name not in _PIXELS or pixels.ndim not in {2, 3}:
            raise InputError(
                f"{source} is {pixels.dtype} of shape {pixels.shape}: only images of {', '.join(_PIXELS)}"
                " can be resized or cropped",
                remedy="Prepare the arrays in their final size.",
            )
        for step, size in self._steps(pixels.shape[0], pixels.shape[1]):
            if step == "crop":
                pixels = _crop_centre(pixels, size, source)
            else:
                pixels = resize_bilinear(pixels, size) if step == "resize" else _letterbox_image(pixels, size)
        return pixels

    def _steps(self, height: int, width: int) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield the steps for an image of this size, each with the resulting height and width."""
        if self.crop_fraction is not None:
            height, width = round(height * self.crop_fraction), round(width * self.crop_fraction)
            yield "crop", (height, width)
        if self.resize is not None:
            yield "resize", self.resize
        elif self.resize_short is not None:
            factor = self.resize_short / min(height, width)
            yield "resize", (round(height * factor), round(width * factor))
        elif self.letterbox is not None:
            yield "letterbox", self.letterbox
        if self.crop is not None:
            yield "crop", self.crop

    def boxes(
        self, boxes: npt.NDArray[np.floating[Any]], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float64], tuple[int, int]]:
        """Transform boxes of an image as step 2 does, so that detections can be judged in the model's input.

        Args:
            boxes: Left, top, right and bottom in pixels, shape ``(n, 4)``.
            size: Height and width of the image.

        Returns:
            The boxes in pixels of the model's input, cut off at its edges, and the input's height and width.
        """
        moved = np.asarray(boxes, np.float64).reshape(-1, 4)
        for step, new in self._steps(*size):
            inner = new if step == "resize" else size if step == "crop" else _fit_size(size, new)
            if inner != size:
                moved = moved * np.array([inner[1] / size[1], inner[0] / size[0]] * 2)
            top, left = (
                (-gone for gone in _centred_corner(size, new)) if step == "crop" else _centred_corner(new, inner)
            )
            moved, size = moved + np.array([left, top] * 2), new
        return np.clip(moved, 0, [size[1], size[0], size[1], size[0]]), size

    def batch(self, samples: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
        """Apply steps 3 to 5 (without ``quantise``, which needs the model) to samples of shape ``(n, …)``.

        Raises:
            InputError: A declared step does not fit the samples.
        """
        numbers = (self.scale, self.mean, self.std)
        if any(value is not None for value in numbers):
            samples = self._apply_arithmetic(samples, source)
        if self.layout is not None:
            samples = _laid_out(samples, self.layout, source)
        if self.dtype is not None and samples.dtype != self.dtype:
            samples = _cast_type(samples, self.dtype, source)
        return samples

    def _apply_arithmetic(self, samples: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
        x: npt.NDArray[Any] = samples.astype(np.float32, copy=False) * np.float32(
            1.0 if self.scale is None else self.scale
        )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is None:
                continue
            if len(values) > 1 and x.shape[-1] != len(values):
                raise InputError(
                    f"{name} has {len(values)} values, but samples of {source} are {x.shape[1:]}: not that many"
                    " channels last",
                    remedy=f"Give {name} one value, or one per channel.",
                )
            operand = np.asarray(values, dtype=np.float32)
            x = x - operand if name == "mean" else x / operand
        return x


def digest(declared: Mapping[str, Any]) -> str:
    """Return ``sha256:…`` of the declared steps as canonical JSON, which is the same however they were written."""
    text = json.dumps(declared, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _change_colours(pixels: npt.NDArray[Any], channels: str, source: str) -> npt.NDArray[Any]:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 2:  # three equal channels, as Pillow's convert("RGB") makes them
        return pixels if channels == "grey" else np.repeat(pixels[..., None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"{source} has the shape {pixels.shape}, which has no three channels to be {channels}")
    if channels != "grey":
        return pixels if channels == "rgb" else pixels[..., ::-1]
    # ITU-R 601, as Pillow's convert("L") does it.
    grey = pixels[..., 0] * 19595.0 + pixels[..., 1] * 38470.0 + pixels[..., 2] * 7471.0
    if pixels.dtype.kind == "f":
        return (grey / 65536).astype(pixels.dtype)
    return np.floor((grey + 0x8000) / 65536).astype(pixels.dtype)


def _crop_centre(pixels: npt.NDArray[Any], size: tuple[int, int], source: str) -> npt.NDArray[Any]:
    height, width = pixels.shape[:2]
    if size[0] > height or size[1] > width or min(size) < 1:
        raise InputError(f"{source} is {height}x{width}, too small to crop {size[0]}x{size[1]} from its centre")
    top, left = _centred_corner((height, width), size)
    return pixels[top : top + size[0], left : left + size[1]]


def _centred_corner(outer: tuple[int, int], inner: tuple[int, int]) -> tuple[int, int]:
    """Return top and left of a centred area."""
    return (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2


def _fit_size(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    factor = min(into[0] / size[0], into[1] / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _letterbox_image(pixels: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    height, width = pixels.shape[:2]
    inner = _fit_size((height, width), size)
    top, left = _centred_corner(size, inner)
    # 114 of 255; for other types, the same share of the largest value.
    white = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    canvas = np.full((*size, *pixels.shape[2:]), 114 * white / 255, pixels.dtype)
    canvas[top : top + inner[0], left : left + inner[1]] = resize_bilinear(pixels, inner)
    return canvas


def _laid_out(samples: npt.NDArray[Any], layout: str, source: str) -> npt.NDArray[Any]:
    if samples.ndim == 3:
        samples = samples[..., None]
    if samples.ndim != 4:
        raise InputError(
            f"a sample of {source} has the shape {samples.shape[1:]}: {layout} needs height × width (× channels)",
            remedy="Leave layout out, or declare shape=HxWxC.",
        )
    return samples if layout == "NHWC" else np.ascontiguousarray(samples.transpose(0, 3, 1, 2))


def _cast_type(samples: npt.NDArray[Any], dtype: str, source: str) -> npt.NDArray[Any]:
    kind = np.dtype(dtype)
    if kind.kind in "iu" and samples.size:
        info = np.iinfo(kind)
        low, high = samples.min(), samples.max()
        if low < info.min or high > info.max:
            raise InputError(
                f"{source} has values from {low:g} to {high:g}, which {dtype} cannot hold",
                remedy="Declare mean and scale to fit, or quantise=input for the model's own quantisation.",
            )
        if samples.dtype.kind == "f":
            samples = np.rint(samples)
    return samples.astype(kind)


def quantised(samples: npt.NDArray[Any], scale: float, zero_point: int, dtype: str) -> npt.NDArray[Any]:
    """Return q = round(x / scale) + zero_point, clipped to the type (TensorFlow Lite's 8-bit specification)."""
    info = np.iinfo(dtype)
    q = np.rint(samples.astype(np.float32, copy=False) / np.float32(scale)) + zero_point
    clipped: npt.NDArray[Any] = np.clip(q, info.min, info.max).astype(dtype)
    return clipped


# --- from words ------------------------------------------------------------------------------------------------------


def _parse_number(text: str) -> float:
    """Parse a number or a fraction such as ``1/255``."""
    over, slash, under = text.partition("/")
    value = float(over) / float(under) if slash else float(over)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _parse_numbers(text: str) -> tuple[float, ...]:
    return tuple(_parse_number(part) for part in text.split(","))


def _parse_divisors(text: str) -> tuple[float, ...]:
    values = _parse_numbers(text)
    if 0.0 in values:
        raise ValueError(text)
    return values


def _parse_integers(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.replace(",", "x").split("x"))
    if min(values) < 1:
        raise ValueError(text)
    return values


def _parse_side(text: str) -> int:
    (value,) = _parse_integers(text)
    return value


def _parse_area(text: str) -> tuple[int, int]:
    values = _parse_integers(text)
    height, width = values * 2 if len(values) == 1 else values
    return height, width


def _parse_fraction(text: str) -> float:
    value = _parse_number(text)
    if not 0 < value <= 1:
        raise ValueError(text)
    return value


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        for name in names:
            if name.lower() == text.lower():
                return name
        raise ValueError(text)

    return parse


#: key → its parser, and a description of valid values
_KEYS: dict[str, tuple[Callable[[str], Any], str]] = {
    "channels": (_one_of("rgb", "bgr", "grey"), "rgb, bgr or grey"),
    "crop_fraction": (_parse_fraction, "a number above 0 and at most 1, as 0.875"),
    "resize": (_parse_area, "HxW, or one number for both"),
    "resize_short": (_parse_side, "one number of pixels"),
    "letterbox": (_parse_area, "HxW, or one number for both"),
    "crop": (_parse_area, "HxW, or one number for both"),
    "shape": (_parse_integers, "numbers joined by x, as 49x10x1"),
    "scale": (_parse_number, "a number or a fraction, as 1/255"),
    "mean": (_parse_numbers, "one number or one per channel, as 0.485,0.456,0.406"),
    "std": (_parse_divisors, "one number or one per channel, none of them 0"),
    "layout": (_one_of("NCHW", "NHWC"), "NCHW or NHWC"),
    "dtype": (_one_of(*_DTYPES), "one of " + ", ".join(_DTYPES)),
    "quantise": (_one_of("input"), "input"),
}

KEYS = frozenset(_KEYS)


def from_options(options: Mapping[str, str]) -> Preprocess:
    """Parse preprocessing from texts such as ``{"scale": "1/255", "layout": "NCHW", "dtype": "float32"}``.

    Raises:
        InputError: A key does not exist, a value is not valid, or two keys exclude each other.
    """
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in _KEYS:
            raise unknown("preprocessing step", key, KEYS)
        parse, wanted = _KEYS[key]
        try:
            values[key] = parse(str(text).strip())
        except (ValueError, ZeroDivisionError):
            raise InputError(f"preprocessing {key}={text} is not understood", remedy=f"Give {wanted}.") from None
    sizes = (("resize", "resize_short"), ("resize", "letterbox"), ("resize_short", "letterbox"))
    for first, second in (*sizes, ("dtype", "quantise")):
        if first in values and second in values:
            raise InputError(f"preprocessing {first} and {second} exclude one another", remedy="Keep one of them.")
    return Preprocess(**values)
