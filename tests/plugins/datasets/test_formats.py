"""Every format, from tiny data made here: right samples, right labels, and one clear sentence for each way to break."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeprof.errors import InputError
from edgeprof.evaluation.labels import are_absent, require_some
from edgeprof_plugins.datasets import cifar, coco, idx, images, mlperf_tiny, npz

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


def all_samples(dataset, size=4):
    return np.concatenate([batch[""] for batch in dataset.batches(size)])


# --- npz --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels"), ("data", "targets")])
def test_npz_finds_inputs_and_labels(tmp_path, names):
    x, y = RNG.normal(size=(7, 3)).astype(np.float32), np.arange(7)
    np.savez_compressed(tmp_path / "a.npz", **{names[0]: x, names[1]: y})
    dataset = npz.open_npz(str(tmp_path / "a.npz"), {})
    assert np.array_equal(all_samples(dataset), x)
    assert np.array_equal(dataset.labels, y)
    assert npz.recognises(tmp_path / "a.npz")


def test_npz_with_one_string_for_each_sample(tmp_path):
    words = np.array(["no", "maybe", "yes"])
    np.savez(tmp_path / "a.npz", x=words, y=np.arange(3))
    dataset = npz.open_npz(str(tmp_path / "a.npz"), {})
    assert all_samples(dataset, 2).tolist() == words.tolist()
    assert [sample[""].tolist() for sample in dataset.representatives()] == [["no"]]
    assert dataset.fingerprint()


def test_npz_with_names_of_its_own_takes_them_as_options(tmp_path):
    np.savez(tmp_path / "a.npz", pixels=np.zeros((2, 3)), junk=np.zeros(9), gold=np.array([1, 0]))
    dataset = npz.open_npz(str(tmp_path / "a.npz"), {"x": "pixels", "y": "gold"})
    assert dataset.labels.tolist() == [1, 0]
    with pytest.raises(InputError) as caught:
        npz.open_npz(str(tmp_path / "a.npz"), {"x": "pixel", "y": "gold"})
    assert "pixels" in caught.value.remedy


def test_npz_with_an_array_per_input_feeds_them_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", left=np.zeros((5, 3)), right=np.ones((5, 2)), y=np.arange(5))
    dataset = npz.open_npz(str(tmp_path / "a.npz"), {"limit": "3"})
    batches = list(dataset.batches(2))
    assert [{k: v.shape for k, v in b.items()} for b in batches] == [
        {"left": (2, 3), "right": (2, 2)},
        {"left": (1, 3), "right": (1, 2)},
    ]
    with pytest.raises(InputError, match="fed as they are"):
        npz.open_npz(str(tmp_path / "a.npz"), {"scale": "2"})


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros((3, 2)), "b": np.zeros((2, 2))}, "sample by sample"),
        ({"x": np.zeros(())}, "sample by sample"),
        ({}, "no arrays"),
        ({"y": np.zeros(3)}, "no inputs"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "sample by sample"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "no samples"),
        ({"x": np.zeros((1, 2)), "y": np.array([{}])}, "plain arrays"),
    ],
)
def test_npz_that_does_not_pair_up_is_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=words):
        npz.open_npz(str(tmp_path / "a.npz"), {})


def test_samples_without_labels_are_samples(tmp_path):
    """To calibrate with; what judges says that there are no labels."""
    x = RNG.normal(size=(7, 3)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x)
    np.savez(tmp_path / "two.npz", left=x, right=x)
    alone = npz.open_npz(str(tmp_path / "a.npz"), {"limit": "5"})
    assert np.array_equal(all_samples(alone), x[:5])
    assert alone.fingerprint()
    two = npz.open_npz(str(tmp_path / "two.npz"), {})
    assert {name: array.shape for name, array in next(two.batches(7)).items()} == {"left": (7, 3), "right": (7, 3)}
    for data in (alone, two):
        with pytest.raises(InputError, match=f"{data.name.split()[0]}.* has no labels, and no metric"):
            require_some(data.labels, data.name)
    with pytest.raises(InputError, match="no labels that label_offset"):
        npz.open_npz(str(tmp_path / "a.npz"), {"label_offset": "1"})


def test_a_folder_of_images_alone_has_no_labels(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for number in range(3):
        image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    assert images.open_folders.recognises(tmp_path)
    data = images.open_folders(str(tmp_path), {})
    assert all_samples(data)[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert are_absent(data.labels)


@pytest.mark.parametrize("content", [b"", b"not a zip", "truncated", "array"])
def test_npz_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((3, 2)), y=np.zeros(3))
    if content == "truncated":
        content = path.read_bytes()[:200]
    if content == "array":
        np.save(tmp_path / "b.npy", np.zeros(3))
        content = (tmp_path / "b.npy").read_bytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz"):
        npz.open_npz(str(path), {})


def test_an_option_that_does_not_exist_is_refused_with_the_nearest(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.zeros(3))
    with pytest.raises(InputError) as caught:
        npz.open_npz(str(tmp_path / "a.npz"), {"limt": "2"})
    assert "limit" in caught.value.remedy


# --- idx --------------------------------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray, *, zipped: bool = False) -> None:
    content = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content += array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_folder_and_file(tmp_path, zipped):
    x, y = RNG.integers(0, 256, (5, 4, 3)), np.array([3, 1, 4, 1, 5])
    suffix = ".gz" if zipped else ""
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", x, zipped=zipped)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", y, zipped=zipped)
    for spec in (tmp_path, tmp_path / f"t10k-images-idx3-ubyte{suffix}"):
        assert idx.recognises(spec)
        dataset = idx.open_idx(str(spec), {})
        assert np.array_equal(all_samples(dataset), x)
        assert dataset.labels.tolist() == y.tolist()


def test_idx_with_two_splits_wants_one_chosen(tmp_path):
    for split in ("t10k", "train"):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte", np.zeros((2, 2, 2)))
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", np.zeros(2))
    with pytest.raises(InputError) as caught:
        idx.open_idx(str(tmp_path), {})
    assert "split=" in caught.value.remedy
    assert len(idx.open_idx(str(tmp_path), {"split": "train"})) == 2


def test_idx_broken_in_every_way(tmp_path):
    file = tmp_path / "t10k-images-idx3-ubyte"
    write_idx(file, np.zeros((2, 3, 3)))
    with pytest.raises(InputError, match="no labels beside"):
        idx.open_idx(str(tmp_path), {})
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(3))
    with pytest.raises(InputError, match="sample by sample"):
        idx.open_idx(str(tmp_path), {})
    for content, words in (
        (file.read_bytes()[:-1], "truncated"),
        (file.read_bytes()[:6], "truncated"),
        (b"PNG.", "no IDX file"),
        (b"", "no IDX file"),
        (gzip.compress(file.read_bytes())[:-10], "cannot read"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=words):
            idx.open_idx(str(tmp_path), {})


# --- cifar ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "labels"), [("10", [7]), ("100", [3, 88])])
def test_cifar_is_channels_last_with_the_fine_label(tmp_path, classes, labels):
    image = RNG.integers(0, 256, (3, 32, 32)).astype(np.uint8)
    name = "test_batch.bin" if classes == "10" else "test.bin"
    (tmp_path / name).write_bytes(bytes(labels) + image.tobytes())
    assert cifar.recognises(tmp_path)
    dataset = cifar.open_cifar(str(tmp_path), {"classes": classes})
    assert np.array_equal(all_samples(dataset)[0], image.transpose(1, 2, 0))
    assert dataset.labels.tolist() == [labels[-1]]


def test_cifar_training_batches_are_put_together_in_order(tmp_path):
    for number in (1, 2):
        (tmp_path / f"data_batch_{number}.bin").write_bytes((bytes([number]) + bytes(3072)) * 2)
    assert cifar.open_cifar(str(tmp_path), {"split": "train"}).labels.tolist() == [1, 1, 2, 2]
    with pytest.raises(InputError, match="has no test_batch"):
        cifar.open_cifar(str(tmp_path), {})


def test_cifar_truncated_or_of_the_other_kind_is_refused(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073 + 5))
    with pytest.raises(InputError, match="whole number of 3073"):
        cifar.open_cifar(str(tmp_path), {})
    with pytest.raises(InputError, match="classes=50"):
        cifar.open_cifar(str(tmp_path), {"classes": "50"})


# --- MLPerf Tiny ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "kws01" / "data"
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.bin").write_bytes(bytes([255, 1, 2, 3, 4, 5]))
    (folder / "y_labels.csv").write_text("a.bin,12,7\nb.bin,12,2\n")
    return folder


def test_mlperf_tiny_reads_raw_bytes_as_declared(tiny):
    assert mlperf_tiny.recognises(tiny)
    dataset = mlperf_tiny.open_folder(str(tiny), {"raw": "int8", "shape": "2x3"})
    assert dataset.name == "kws01"
    assert dataset.labels.tolist() == [7, 2]
    assert all_samples(dataset)[0].tolist() == [[-1, 1, 2], [3, 4, 5]]


def test_mlperf_tiny_does_not_guess_the_type(tiny):
    with pytest.raises(InputError) as caught:
        mlperf_tiny.open_folder(str(tiny), {})
    assert "raw=uint8" in caught.value.remedy
    with pytest.raises(InputError, match="raw=int4"):
        mlperf_tiny.open_folder(str(tiny), {"raw": "int4"})


def test_mlperf_tiny_broken_tables_and_missing_files_are_said(tiny):
    (tiny / "b.bin").unlink()
    with pytest.raises(InputError, match="lacks 1 of the 2"):
        mlperf_tiny.open_folder(str(tiny), {"raw": "int8"})
    (tiny / "y_labels.csv").write_text("a.bin,12,seven\n")
    with pytest.raises(InputError, match="line 1"):
        mlperf_tiny.open_folder(str(tiny), {"raw": "int8"})
    (tiny / "y_labels.csv").write_text("")
    with pytest.raises(InputError, match="no samples"):
        mlperf_tiny.open_folder(str(tiny), {"raw": "int8"})


def test_samples_of_different_sizes_are_said(tiny):
    (tiny / "b.bin").write_bytes(b"123")
    with pytest.raises(InputError, match="different shapes"):
        all_samples(mlperf_tiny.open_folder(str(tiny), {"raw": "int8"}))


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(2):
            pixels = np.full((4, 6, 3), 10 * number + k, np.uint8)
            image.fromarray(pixels).save(tmp_path / "set" / name / f"{k}.png")
    (tmp_path / "set" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "set"


def test_folders_are_classes_in_alphabetical_order(folders):
    assert images.open_folders.recognises(folders)
    dataset = images.open_folders(str(folders), {})
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert all_samples(dataset)[:, 0, 0, 0].tolist() == [0, 1, 10, 11]
    assert all_samples(dataset).shape == (4, 4, 6, 3)


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert not images.open_folders.recognises(tmp_path)
    with pytest.raises(InputError, match="no images"):
        images.open_folders(str(tmp_path), {})


@pytest.mark.parametrize("header", ["", "name,weight,class\n"])
def test_table_of_files_with_or_without_a_header(folders, header):
    table = folders / "labels.csv"
    table.write_text(header + "cat/0.png,0.5,3\ndog/1.png,0.5,9\n")
    assert images.open_table.recognises(folders)
    label = "class" if header else "3"
    dataset = images.open_table(str(folders), {"label": label})
    assert dataset.labels.tolist() == [3, 9]
    assert all_samples(dataset)[:, 0, 0, 0].tolist() == [0, 11]


def test_table_may_name_arrays(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3.0))
    (tmp_path / "list.csv").write_text("a.npy,1\n")
    assert all_samples(images.open_table(str(tmp_path / "list.csv"), {})).tolist() == [[0.0, 1.0, 2.0]]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("", {}, "empty"),
        ("gone.png,1\n", {}, "do not exist"),
        ("file,label\ncat/0.png,x\n", {}, "line 2"),
        ("file,label\ncat/0.png,1\n", {"label": "class"}, "no column class"),
    ],
)
def test_table_broken_in_every_way(folders, content, options, words):
    (folders / "labels.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        images.open_table(str(folders), options)


def test_an_image_that_is_none_is_named(folders):
    (folders / "cat" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"0\.png"):
        all_samples(images.open_folders(str(folders), {}))


def test_images_of_different_sizes_want_a_resize(folders):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folders / "cat" / "0.png")
    with pytest.raises(InputError) as caught:
        all_samples(images.open_folders(str(folders), {}))
    assert "resize" in caught.value.remedy
    assert all_samples(images.open_folders(str(folders), {"resize": "5"})).shape == (4, 5, 5, 3)


def _pictures(folder, modes):
    image = pytest.importorskip("PIL.Image")
    for number, mode in enumerate(modes):
        if mode == "I;16":
            picture = image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
        elif mode == "F":
            picture = image.fromarray(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))
        else:
            picture = image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3)).convert(mode)
        picture.save(folder / f"{number}.{'tif' if mode == 'F' else 'png'}")
    names = sorted(path.name for path in folder.iterdir())
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{name},{k}\n" for k, name in enumerate(names)))
    return folder


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16", "F"])
def test_grey_images_keep_their_bits(tmp_path, mode):
    image = pytest.importorskip("PIL.Image")
    dataset = images.open_table(str(_pictures(tmp_path, [mode])), {})
    ((sample,),) = (batch[""] for batch in dataset.batches(1))
    with image.open(next(tmp_path.glob("0.*"))) as picture:
        wanted = np.asarray(picture.convert("L") if mode in {"L", "LA", "1"} else picture)
    np.testing.assert_array_equal(sample, wanted)
    assert sample.dtype == {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"channels": "rgb"}, {"channels": "bgr"}])
def test_every_image_among_coloured_ones_is_as_pillow_converts_it(tmp_path, mode, options):
    image = pytest.importorskip("PIL.Image")
    modes = ["RGB", mode if mode != "CMYK" else "RGB"]
    dataset = images.open_table(str(_pictures(tmp_path, modes)), options)
    found = all_samples(dataset)
    for number in range(2):
        with image.open(tmp_path / f"{number}.png") as picture:
            wanted = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(found[number], wanted[..., ::-1] if options.get("channels") == "bgr" else wanted)


def test_sixteen_bits_are_resized_without_losing_any(tmp_path):
    dataset = images.open_table(str(_pictures(tmp_path, ["I;16"])), {"resize": "3x8"})
    ((sample,),) = (batch[""] for batch in dataset.batches(1))
    assert sample.dtype == np.uint16
    assert sample.shape == (3, 8)
    assert sample.max() == 55000
    assert len(np.unique(sample)) > 12  # between the values of the file too


@pytest.mark.parametrize("options", [{}, {"channels": "rgb"}, {"scale": "1/255"}])
def test_grey_images_of_different_depths_are_refused_rather_than_mixed(tmp_path, options):
    """In one array, 255 would be white in one and nearly black in the other."""
    dataset = images.open_table(str(_pictures(tmp_path, ["L", "I;16"])), options)
    with pytest.raises(InputError, match=r"0\.png has 8 bits and .*1\.png has 16 bits"):
        all_samples(dataset)


@pytest.mark.parametrize("options", [{}, {"channels": "rgb"}])
def test_deep_grey_images_among_coloured_ones_are_scaled_to_their_8_bits(tmp_path, options):
    samples = all_samples(images.open_table(str(_pictures(tmp_path, ["RGB", "I;16"])), options))
    assert samples.dtype == np.uint8
    assert samples[1, ..., 0].reshape(-1).tolist() == [k * 5000 >> 8 for k in range(12)]


def _deep_png(path, values):
    """Write values of 16 bits, as Pillow cannot: in grey with alpha, RGB or RGBA."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        )
    )


@pytest.mark.parametrize("channels", [3, 4])
def test_coloured_images_keep_16_bits(tmp_path, channels):
    pytest.importorskip("PIL.Image")
    values = RNG.integers(0, 1 << 16, (5, 7, channels), dtype=np.uint16)
    _deep_png(tmp_path / "a.png", values)
    (sample,) = all_samples(images.open_folders(str(tmp_path), {}))
    assert sample.dtype == np.uint16
    np.testing.assert_array_equal(sample, values[..., :3])


@pytest.mark.parametrize("largest", [65535, 1023])
def test_the_16_bits_of_a_ppm_are_scaled_to_their_whole_range(tmp_path, largest):
    pytest.importorskip("PIL.Image")
    values = RNG.integers(0, largest + 1, (5, 7, 3), dtype=np.uint16)
    (tmp_path / "a.ppm").write_bytes(b"P6 7 5 %d\n" % largest + values.astype(">u2").tobytes())
    (sample,) = all_samples(images.open_folders(str(tmp_path), {}))
    np.testing.assert_array_equal(sample, np.rint(values * (65535 / largest)))


@pytest.mark.parametrize("compressed", [False, True])
def test_the_16_bits_of_a_tiff_are_kept(tmp_path, compressed):
    pytest.importorskip("PIL.Image")
    values = RNG.integers(0, 1 << 16, (5, 7, 3), dtype=np.uint16)
    data = zlib.compress(values.astype("<u2").tobytes()) if compressed else values.astype("<u2").tobytes()
    tags = [(256, 7), (257, 5), (258, 122), (259, 8 if compressed else 1), (262, 2), (273, 128), (277, 3), (278, 5)]
    entries = [struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags]
    entries.append(struct.pack("<HHII", 279, 4, 1, len(data)))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    assert len(head) == 122  # where the sizes of the channels stand
    (tmp_path / "a.tif").write_bytes(head + struct.pack("<3H", 16, 16, 16) + data)
    (sample,) = all_samples(images.open_folders(str(tmp_path), {}))
    np.testing.assert_array_equal(sample, values)


def test_16_bits_that_pillow_cannot_read_are_refused(tmp_path):
    """Grey and alpha of 16 bits: Pillow gives 8 of them without a word."""
    pytest.importorskip("PIL.Image")
    _deep_png(tmp_path / "a.png", RNG.integers(0, 1 << 16, (5, 7, 2), dtype=np.uint16))
    with pytest.raises(InputError, match=r"a\.png has 16 bits per channel in a form of which Pillow reads only 8"):
        all_samples(images.open_folders(str(tmp_path), {}))


def test_deep_grey_images_among_deep_colours_keep_16_bits(tmp_path):
    folder = _pictures(tmp_path, ["I;16"])
    _deep_png(folder / "1.png", RNG.integers(0, 1 << 16, (3, 4, 3), dtype=np.uint16))
    samples = all_samples(images.open_folders(str(folder), {}))
    assert samples.dtype == np.uint16
    assert samples[0].reshape(-1, 3).tolist() == [[k * 5000] * 3 for k in range(12)]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("read", [all_samples, lambda dataset: list(dataset.representatives())])
def test_images_of_8_and_16_bits_are_refused_rather_than_mixed(tmp_path, mode, read):
    folder = _pictures(tmp_path, [mode])
    _deep_png(folder / "1.png", RNG.integers(0, 1 << 16, (3, 4, 3), dtype=np.uint16))
    with pytest.raises(InputError, match="different types: uint16, uint8"):
        read(images.open_folders(str(folder), {}))


def test_deep_grey_images_of_detection_keep_16_bits(tmp_path):
    folder = _pictures(tmp_path, ["I;16"])
    annotations = {
        "images": [{"id": 1, "file_name": "0.png", "width": 4, "height": 3}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2]}],
        "categories": [{"id": 1}],
    }
    (folder / "instances.json").write_text(json.dumps(annotations))
    (sample,) = all_samples(coco.open_coco(str(folder / "instances.json"), {}))
    assert sample.dtype == np.uint16
    assert sample.reshape(-1, 3).tolist() == [[k * 5000] * 3 for k in range(12)]


def test_a_folder_with_a_table_is_the_tables(tmp_path):
    folder = _pictures(tmp_path, ["RGB"])
    assert images.open_table.recognises(folder)
    assert not images.open_folders.recognises(folder)


def test_representatives_are_one_of_each_form_by_their_heads(tmp_path):
    dataset = images.open_table(str(_pictures(tmp_path, ["RGB", "RGB", "I;16", "RGB"])), {"channels": "rgb"})
    assert [sample[""].dtype.name for sample in dataset.representatives()] == ["uint8", "uint8"]
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"3\.png"):
        list(dataset.representatives())


@pytest.mark.parametrize(
    ("written", "options", "labels"),
    [
        (["0.5", "2"], {}, [0.5, 2.0]),
        (["-1", "300"], {}, [-1, 300]),
        (["cat", "dog"], {"label": "label"}, ["cat", "dog"]),
        (["9007199254740993", "1"], {}, [9007199254740993, 1]),
    ],
)
def test_labels_of_a_table_are_what_is_written(tmp_path, written, options, labels):
    folder = _pictures(tmp_path, ["RGB", "RGB"])
    (folder / "labels.csv").write_text("file,label\n0.png," + written[0] + "\n1.png," + written[1] + "\n")
    assert images.open_table(str(folder), options).labels.tolist() == labels


def test_an_offset_does_not_wrap_small_labels(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 1)), y=np.array([255, 0], np.uint8))
    assert npz.open_npz(str(tmp_path / "d.npz"), {"label_offset": "1"}).labels.tolist() == [256, 1]
