"""Detection data in COCO format: a JSON file with images, annotations and categories, and a folder of images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprof import hookimpl, whole_files
from edgeprof.errors import InputError
from edgeprof.evaluation.labels import Boxes, detection
from edgeprof.evaluation.preprocess import from_options
from edgeprof.evaluation.samples import COMMON, Samples, split_options
from edgeprof_plugins.datasets.images import image_kind, image_reader, is_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgeprof.evaluation.dataset import Dataset
    from edgeprof.hookspecs import Register

_PATTERNS = ("annotations/instances_*.json", "instances*.json", "*.coco.json")
LAYOUT = "a folder with annotations/instances_val2017.json and val2017/*.jpg (or an instances*.json beside its images)"


def open_coco(spec: str, options: Mapping[str, str]) -> Dataset:
    """Open the JSON file, or the folder that contains it.

    Classes are the categories in the order of their ids, counted from 0, as YOLO counts COCO's 80. With
    ``categories=id`` classes are the ids themselves (add ``label_offset=-1`` for models that count COCO's 90 from 0).
    Boxes are transformed like the pixels in the declared preprocessing; boxes that are cut off completely are omitted.

    Options: ``split``, such as ``val2017``, where there are several; ``images``, the folder of the images, relative to
    the JSON file; ``categories``: ``index`` (the default) or ``id``.

    Raises:
        InputError: there is no JSON file, it is not in COCO format, or images are missing.
    """
    settings, rest = split_options(options, {"split", "images", "categories", "label_offset"}, "coco")
    by = settings.get("categories", "index")
    if by not in {"index", "id"}:
        raise InputError(f"categories={by} is neither index nor id")
    path = _annotation_file(Path(spec), settings.get("split"))
    images, annotations, ids = _read_annotations(path)
    try:
        offset = int(settings.get("label_offset", "0"))
    except ValueError:
        raise InputError(f"label_offset={settings['label_offset']} is not a whole number") from None
    number = {
        category: (category if by == "id" else position) + offset for position, category in enumerate(sorted(ids))
    }
    folder = _image_folder(path, settings.get("images"), images)
    steps = from_options({key: value for key, value in rest.items() if key not in COMMON})
    labels = []
    for image in images:
        mine = annotations[image["id"]]
        corners = np.array([_box_corners(annotation["bbox"]) for annotation in mine], np.float64).reshape(-1, 4)
        boxes, seen = steps.boxes(corners, image["size"])
        visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        classes = np.array([number[annotation["category_id"]] for annotation in mine], np.int64)
        crowd = np.array([bool(annotation.get("iscrowd")) for annotation in mine], np.bool_)
        labels.append(Boxes(boxes[visible], classes[visible], crowd[visible], seen))

    files = [folder / image["file_name"] for image in images]
    pixels_of = image_reader(path.name, files, colour=True)  # some COCO images are grey

    def read(position: int) -> npt.NDArray[Any]:
        image, file, pixels = images[position], files[position], pixels_of(position)
        height, width = image["size"]
        if pixels.shape[:2] != (height, width):
            raise InputError(f"{file} is {pixels.shape[1]} x {pixels.shape[0]}, but {path} says {width} x {height}")
        return pixels

    return Samples(path.name, detection(labels), read, rest, kind=image_kind(files, rest))


def _annotation_file(path: Path, split: str | None) -> Path:
    if not path.is_dir():
        return path
    candidates = [
        file for pattern in _PATTERNS for file in sorted(path.glob(pattern)) if split is None or split in file.name
    ]
    if len(candidates) != 1:
        names = ", ".join(file.name for file in candidates)
        raise InputError(
            f"{path} has {'several files' if candidates else 'no file'} of annotations{f' ({names})' if names else ''}",
            remedy="Choose one: --preprocess split=val2017" if candidates else f"It wants {LAYOUT}.",
        )
    return candidates[0]


def _read_annotations(path: Path) -> tuple[list[dict[str, Any]], dict[Any, list[dict[str, Any]]], list[int]]:
    """Read images, annotations by image and category ids, and check that they are consistent."""
    try:
        content = json.loads(whole_files.read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    try:
        ids = [int(category["id"]) for category in content["categories"]]
        images = [
            {"id": image["id"], "file_name": str(image["file_name"]), "size": _image_size(image)}
            for image in content["images"]
        ]
        by_image: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in images}
        for annotation in content["annotations"]:
            _box_corners(annotation["bbox"])
            if annotation["category_id"] not in ids:
                raise InputError(
                    f"{path}: an annotation has the category {annotation['category_id']}, which does not exist"
                )
            by_image[annotation["image_id"]].append(annotation)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path} is not COCO's JSON of detection: {type(error).__name__} {error}",
            remedy="It needs images (id, file_name, height, width), annotations (image_id, category_id, bbox) and"
            " categories (id).",
        ) from None
    return images, by_image, ids


def _image_size(image: dict[str, Any]) -> tuple[int, int]:
    height, width = int(image["height"]), int(image["width"])
    if min(height, width) < 1:
        raise ValueError("height and width")
    return height, width


def _box_corners(bbox: list[float]) -> tuple[float, float, float, float]:
    left, top, width, height = (float(value) for value in bbox)
    if not math.isfinite(left + top + width + height):
        raise ValueError("bbox")
    return left, top, left + width, top + height


def _image_folder(path: Path, given: str | None, images: list[dict[str, Any]]) -> Path:
    """Return the folder that contains all images: the given one, or the first usual place that contains them."""
    split = path.stem.removeprefix("instances_")
    places = [path.parent / given] if given else [path.parent, path.parent.parent / split, path.parent / split]
    if not given:
        places += [path.parent / "images", path.parent.parent / "images", path.parent.parent / "images" / split]
    for place in places:
        missing = [image["file_name"] for image in images if not is_file(place / image["file_name"])]
        if images and not missing:
            return place
        if len(missing) < len(images):
            raise InputError(f"{path} names {len(missing)} images that are not in {place}, as {missing[0]}")
    if not images:
        raise InputError(f"{path} lists no images")
    raise InputError(
        f"the images of {path} are not in {', '.join(map(str, dict.fromkeys(places)))}",
        remedy="Say where they are, relative to the JSON file: --preprocess images=FOLDER",
    )


def recognises(path: Path) -> bool:
    if path.is_dir():
        return any(True for pattern in _PATTERNS for _ in path.glob(pattern))
    return path.suffix == ".json"


open_coco.recognises = recognises  # type: ignore[attr-defined] # load_dataset asks the factory
open_coco.layout = LAYOUT  # type: ignore[attr-defined] # and reports the layout where no data is found


@hookimpl
def register_datasets(register: Register) -> None:
    register("coco", open_coco)
