"""Lists and annotations of strangers: whatever they hold is read or told in one sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprof.errors import InputError
from edgeprof_plugins.datasets.coco import open_coco
from edgeprof_plugins.datasets.gtsrb import open_gtsrb
from edgeprof_plugins.datasets.images import open_table
from edgeprof_plugins.datasets.pairs import open_pairs

HEAD = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
CELL = st.sampled_from(
    ["a.npy", "b.npy", "0", "1", "-3", "٣", "²", "", '"', "x" * 9, "1e400", "\x00", "NaN", "..", "\r"]
)
LINES = st.lists(st.lists(CELL, max_size=9), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["a.npy", "", "1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "file_name", "height", "width", "bbox", "image_id", "category_id"]), inner
        )
    ),
    max_leaves=12,
)


def read(opened, path, **options):
    try:
        for batch in opened(str(path), {"limit": "2", **options}).batches(1):
            assert batch
    except InputError:
        return


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("strangers")


@given(
    lines=LINES,
    separator=st.sampled_from([",", ";", "\t", " "]),
    head=st.sampled_from(["", HEAD, "1", "2\t1", "path,label"]),
)
@settings(max_examples=50, deadline=None)
def test_lists(folder, lines, separator, head):
    text = "\n".join(([head] if head else []) + [separator.join(cells) for cells in lines])
    for name, opened in (
        ("pairs.txt", open_pairs),
        ("pairs.csv", open_pairs),
        ("list.csv", open_table),
        ("GT-final_test.csv", open_gtsrb),
    ):
        (folder / name).write_text(text, "utf-8")
        read(opened, folder / name)


@given(raw=st.binary(max_size=60))
@settings(max_examples=25, deadline=None)
def test_bytes(folder, raw):
    for name, opened in (
        ("pairs.txt", open_pairs),
        ("pairs.csv", open_pairs),
        ("list.csv", open_table),
        ("GT-final_test.csv", open_gtsrb),
        ("instances.json", open_coco),
    ):
        (folder / name).write_bytes(raw)
        read(opened, folder / name)


@given(images=JSON, annotations=JSON, categories=JSON, whole=st.none() | JSON)
@settings(max_examples=60, deadline=None)
def test_annotations(folder, images, annotations, categories, whole):
    content = whole or {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    read(open_coco, folder / "instances.json", resize="8x8")


@given(
    change=st.sampled_from(["images", "annotations", "categories"]), key=st.text(max_size=3), value=JSON, data=st.data()
)
@settings(max_examples=60, deadline=None)
def test_annotations_that_are_almost_right(folder, change, key, value, data):
    content = {
        "images": [{"id": 1, "file_name": "a.npy", "height": 4, "width": 4}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "iscrowd": 0}],
        "categories": [{"id": 1}],
    }
    one = content[change][0]
    one[data.draw(st.sampled_from([*one, key]))] = value
    (folder / "instances.json").write_text(json.dumps(content))
    read(open_coco, folder / "instances.json", resize="8x8")
