"""Layouts as they are published, built here small: GTSRB, COCO, LFW; and CSV lists as people write them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from edgeprof.errors import InputError
from edgeprof.evaluation.load import load_dataset
from edgeprof.plugins import PluginHost
from edgeprof_plugins.datasets import coco, gtsrb, images, pairs

HEAD = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"


def picture(path, shade, size=(20, 24)):
    """Grey but for a frame of 2 pixels, so that a crop is seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[2:-2, 2:-2] = shade
    Image.fromarray(pixels).save(path)


def shades(dataset):
    return [int(one.max()) for batch in dataset.batches(1) for one in batch[""]]


@pytest.fixture(scope="module")
def host():
    return PluginHost.from_environment()


# --- GTSRB ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def signs(tmp_path):
    """As published: two classes to train, three images to test."""
    root = tmp_path / "GTSRB"
    for label, shade in ((0, 50), (11, 90)):
        folder = root / f"Final_Training/Images/{label:05d}"
        rows = [HEAD]
        for number in range(2):
            picture(folder / f"00000_{number:05d}.ppm", shade + number)
            rows.append(f"00000_{number:05d}.ppm;24;20;2;2;22;18;{label}")
        (folder / f"GT-{label:05d}.csv").write_text("\n".join(rows) + "\n")
    test = root / "Final_Test/Images"
    rows = [HEAD]
    for number, label in enumerate((11, 0, 11)):
        picture(test / f"{number:05d}.ppm", 100 + number)
        rows.append(f"{number:05d}.ppm;24;20;2;2;22;18;{label}")
    (test / "GT-final_test.csv").write_text("\r\n".join(rows))
    return root


@pytest.mark.parametrize("below", ["", "Final_Test", "Final_Test/Images", "Final_Test/Images/GT-final_test.csv", ".."])
def test_gtsrb_is_found_at_any_level(host, signs, below):
    found = load_dataset(str((signs / below).resolve()), host)
    assert found.labels.tolist() == [11, 0, 11]
    assert shades(found) == [100, 101, 102]


def test_gtsrb_to_train_takes_the_class_from_the_table(signs):
    found = gtsrb.open_gtsrb(str(signs), {"split": "train"})
    assert found.labels.tolist() == [0, 0, 11, 11]
    assert shades(found) == [50, 51, 90, 91]


def test_the_rectangle_is_cut_out_and_is_a_part_of_the_preprocessing(signs):
    full, cut = (gtsrb.open_gtsrb(str(signs), {"roi": roi}) for roi in ("full", "crop"))
    (sample,) = next(iter(cut.batches(1)))[""]
    assert sample.shape == (16, 20, 3)
    assert (sample == 100).all()  # the frame is gone
    assert full.preprocessing != cut.preprocessing
    assert full.preprocessing == gtsrb.open_gtsrb(str(signs), {}).preprocessing


def test_the_table_of_the_test_may_lie_elsewhere(signs):
    (signs / "Final_Test/Images/GT-final_test.csv").rename(signs / "GT-final_test.csv")
    assert shades(gtsrb.open_gtsrb(str(signs), {})) == [100, 101, 102]


def test_gtsrb_from_kaggle(host, tmp_path):
    head = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"
    for table, files in (("Test", ["Test/00000.png"]), ("Train", ["Train/2/a.png", "Train/10/b.png"])):
        for number, file in enumerate(files):
            picture(tmp_path / file, 60 + number)
        rows = [f"24,20,2,2,22,18,{2 + 8 * n},{file}" for n, file in enumerate(files)]
        (tmp_path / f"{table}.csv").write_text("\n".join([head, *rows]))
    assert load_dataset(str(tmp_path), host).labels.tolist() == [2]
    assert load_dataset(str(tmp_path), host, {"split": "train"}).labels.tolist() == [2, 10]
    # The folder of classes alone: 10 comes after 2, not before it.
    assert shades(load_dataset(str(tmp_path / "Train"), host)) == [60, 61]


def test_gtsrb_without_its_classes_names_the_file_that_has_them(signs):
    table = signs / "Final_Test/Images/GT-final_test.csv"
    table.write_text(table.read_text().replace(";ClassId", "").replace(";11", "").replace(";0\n", "\n"))
    with pytest.raises(InputError, match="line 2 has no image with ClassId") as error:
        gtsrb.open_gtsrb(str(signs), {})
    assert "GTSRB_Final_Test_GT.zip" in error.value.remedy
    table.unlink()
    with pytest.raises(InputError, match="no table of GTSRB to test"):
        gtsrb.open_gtsrb(str(signs), {"split": "test"})


def test_gtsrb_with_images_missing_or_a_rectangle_outside(signs):
    (signs / "Final_Test/Images/00001.ppm").unlink()
    with pytest.raises(InputError, match=r"1 images that do not exist, as .*00001\.ppm"):
        gtsrb.open_gtsrb(str(signs), {})
    picture(signs / "Final_Test/Images/00001.ppm", 9, size=(6, 6))
    with pytest.raises(InputError, match="lies outside"):
        shades(gtsrb.open_gtsrb(str(signs), {"roi": "crop"}))
    with pytest.raises(InputError, match="split=dev"):
        gtsrb.open_gtsrb(str(signs), {"split": "dev"})


def test_data_that_are_missing_are_never_fetched(host, tmp_path):
    with pytest.raises(InputError, match="does not exist") as error:
        load_dataset(f"gtsrb:{tmp_path / 'nowhere'}", host)
    assert "Final_Training/Images/00000/GT-00000.csv" in error.value.remedy
    assert "downloads nothing" in error.value.remedy


# --- COCO -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def objects(tmp_path):
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 80},
            {"id": 3, "file_name": "b.png", "height": 40, "width": 40},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 5, "name": "bird"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [20, 10, 40, 20]},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 4, 4], "iscrowd": 1},
        ],
    }
    for one in content["images"]:
        picture(tmp_path / "val" / one["file_name"], 70, (one["height"], one["width"]))
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations/instances_val.json"
    path.write_text(json.dumps(content))
    return path, content


@pytest.mark.parametrize("spec", ["", "annotations/instances_val.json", "coco:"])
def test_coco_finds_its_images_and_moves_boxes_with_the_pixels(host, objects, tmp_path, spec):
    where = f"coco:{tmp_path}" if spec == "coco:" else str(tmp_path / spec)
    found = load_dataset(where, host, {"resize": "20x20"})
    first, second = found.labels
    assert first["boxes"].tolist() == [[5, 5, 15, 15], [0, 0, 1, 2]]
    assert first["classes"].tolist() == [1, 0]  # by the order of the ids
    assert first["crowd"].tolist() == [False, True]
    assert second["classes"].tolist() == [-1, -1]
    assert first["size"].tolist() == [20, 20]
    assert [batch[""].shape for batch in found.batches(2)] == [(2, 20, 20, 3)]


def test_coco_classes_may_be_the_ids_counted_from_0(objects):
    found = coco.open_coco(str(objects[0]), {"categories": "id", "label_offset": "-1", "limit": "1"})
    assert found.labels["classes"].tolist() == [[17, 4]]


def test_a_box_that_is_cut_off_is_left_out(objects):
    found = coco.open_coco(str(objects[0]), {"crop": "40x40"})
    assert found.labels["boxes"][0].tolist() == [[0, 10, 40, 30]]
    assert found.labels["classes"][0].tolist() == [1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("annotations"), "not COCO's JSON of detection: KeyError 'annotations'"),
        (lambda c: c["annotations"][0].pop("bbox"), "'bbox'"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "ValueError"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "bbox"),
        (lambda c: c["annotations"][0].update(category_id=99), "category 99, which does not exist"),
        (lambda c: c["annotations"][0].update(image_id=99), "KeyError 99"),
        (lambda c: c["images"][0].update(height=None), "TypeError"),
        (lambda c: c["images"][0].update(height=0), "height and width"),
        (lambda c: c["images"][0].update(width=float("inf")), "OverflowError"),
        (lambda c: c["images"][0].update(file_name="gone.png"), r"1 images that are not in .*gone\.png"),
        (lambda c: [one.update(file_name="x") for one in c["images"]], "the images of .* are not in"),
        (lambda c: c.update(images=[], annotations=[]), "lists no images"),
        (lambda c: c["images"][0].update(height=41), "is 80 x 40, but .* says 80 x 41"),
    ],
)
def test_coco_that_is_broken_is_one_sentence(objects, change, words):
    path, content = objects
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        list(coco.open_coco(str(path), {}).batches(1))


def test_coco_garbage_and_several_files(objects, tmp_path):
    for text in ("[1]", "{", "null"):
        objects[0].write_text(text)
        with pytest.raises(InputError, match="instances_val"):
            coco.open_coco(str(tmp_path), {})
    (tmp_path / "annotations/instances_train.json").write_text("{}")
    with pytest.raises(InputError, match="several files of annotations"):
        coco.open_coco(str(tmp_path), {})
    with pytest.raises(InputError, match="no file of annotations"):
        coco.open_coco(str(tmp_path), {"split": "dev"})


# --- pairs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def faces(tmp_path):
    for name, shade in (("Ann_Li", 40), ("Bo", 120), ("Cy", 200)):
        for number in (1, 2):
            picture(tmp_path / f"lfw/{name}/{name}_{number:04d}.jpg", shade + number)
    lines = ["2\t1", "Ann_Li\t1\t2", "Ann_Li\t1\tBo\t2", "Cy\t1\t2", "Bo\t1\tCy\t1"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_pairs_of_lfw(host, faces):
    found = load_dataset(str(faces), host)
    assert found.labels["same"][::2].tolist() == [True, False, True, False]
    assert found.labels["fold"][::2].tolist() == [0, 0, 1, 1]
    assert shades(found) == pytest.approx([41, 42, 41, 122, 201, 202, 121, 201], abs=25)  # JPEG
    some = load_dataset(str(faces / "pairs.txt"), host, {"skip": "1", "limit": "2"})
    assert some.labels["pair"].tolist() == [1, 1, 2, 2]


def test_a_table_of_pairs(host, faces):
    rows = ["first,second,same,fold", "Bo/Bo_0001.jpg,Bo/Bo_0002.jpg,1,0", "Bo/Bo_0001.jpg,Cy/Cy_0001.jpg,0,4"]
    (faces / "pairs.csv").write_text("\n".join(rows))
    found = load_dataset(str(faces / "pairs.csv"), host, {"images": "lfw"})
    assert found.labels["same"][::2].tolist() == [True, False]
    assert found.labels["fold"][::2].tolist() == [0, 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "does not begin with"),
        ("Ann_Li 1 2", "does not begin with"),
        ("2 1\nAnn_Li 1 2", "promises 4 pairs and has 1: it is truncated"),
        ("1\nAnn_Li 1 2\nBo one Cy 2", "line 3 is not NAME N M"),
        ("1\nAnn_Li 1 9\nBo 1 Cy 2", r"1 files that do not exist, as .*Ann_Li_0009\.jpg"),
    ],
)
def test_pairs_that_are_broken_are_one_sentence(faces, text, words):
    (faces / "pairs.txt").write_text(text)
    with pytest.raises(InputError, match=words):
        pairs.open_pairs(str(faces), {})


@pytest.mark.parametrize("row", ["a.jpg,b.jpg", "a.jpg,b.jpg,maybe", "a.jpg,b.jpg,1,x"])
def test_a_row_that_is_no_pair_is_named(faces, row):
    (faces / "pairs.csv").write_text(f"a.jpg,b.jpg,1\n{row}\n")
    with pytest.raises(InputError, match="line 2 is not first,second,same"):
        pairs.open_pairs(str(faces / "pairs.csv"), {})


# --- CSV lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{0},1\n{1},0",
        "path,label\n{0},1\n{1},0",
        "label;size;path\n1;9;{0}\n0;9;{1}",
        "\ufeffClassId\tImage\n1\t{0}\n0\t{1}",
    ],
)
def test_a_list_as_people_write_it(host, tmp_path, text):
    picture(tmp_path / "a.png", 80)
    np.save(tmp_path / "b.npy", np.full((3, 3), 9, np.uint8))
    (tmp_path / "list.csv").write_text(text.format("a.png", "b.npy"), "utf-8")
    found = load_dataset(str(tmp_path / "list.csv"), host)
    assert found.labels.tolist() == [1, 0]
    assert shades(found) == [80, 9]


def test_a_list_of_names_says_what_it_wants(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\na.png,cat\n")
    with pytest.raises(InputError, match="line 2 has no class number") as error:
        images.open_table(str(tmp_path / "list.csv"), {})
    assert "label=COLUMN" in error.value.remedy
