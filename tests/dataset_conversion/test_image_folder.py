import shutil

import numpy as np
import pytest
from PIL import Image

from autosam_net.data.dataset import read_dataset, training_cases
from autosam_net.data.splits import group_cases
from autosam_net.imageio import read_image, read_label
from dataset_conversion.image_folder import main, number_colours
from tests.support import real_data

SHAPE = (12, 10)


def disc(*values):
    """A mask with a stripe of each value on 0."""
    mask = np.zeros(SHAPE, np.uint8)
    for index, value in enumerate(values):
        mask[2 * index + 1] = value
    return mask


def noise(*channels):
    return np.random.default_rng(0).integers(0, 256, (*SHAPE, *channels)).astype(np.uint8)


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


@pytest.fixture
def pair(tmp_path):
    """Folders of two colour images and their 0/255 masks."""
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png", noise(3))
        save(tmp_path / "masks" / f"{name}.png", disc(255))
    return tmp_path


def convert(root, *more, images="images", masks="masks"):
    folders = ["-i", str(root / images), "-m", str(root / masks)]
    return main([*folders, "-d", "5", "-n", "Pictures", "--root", str(root), "--workers", "1", *more])


def converted(root):
    return read_dataset(root / "raw" / "Dataset005_Pictures")


def label(root, case="a"):
    return read_label(converted(root).folder / "labelsTr" / f"{case}.png").array[0, 0]


def image(root, case="a"):
    return read_image(converted(root).folder / "imagesTr" / f"{case}_0000.png").array


def refused(root, capsys, *more, **folders) -> str:
    assert convert(root, *more, **folders) == 2
    assert not list((root / "raw").glob("*"))
    text = capsys.readouterr().err.strip()
    assert "\n" not in text
    return text


def test_black_and_white(pair, capsys):
    assert convert(pair, "--group-pattern", "^(.)") == 0
    dataset = converted(pair)
    assert dataset.channel_names == ("R", "G", "B")
    assert dict(dataset.labels.values) == {"background": 0, "foreground": 1}
    assert np.array_equal(label(pair), disc(1))
    assert training_cases(dataset)[0].images[0].read_bytes() == (pair / "images" / "a.png").read_bytes()
    assert group_cases(["a", "b"], dataset.group_pattern) == {"a": "a", "b": "b"}
    printed = capsys.readouterr().out
    assert "mask values are mapped: 0 -> 0, 255 -> 1" in printed
    assert "autosam_plan_and_preprocess -d 5" in printed


@pytest.mark.parametrize("suffix", ["_Annotation", "_mask", "_seg", "-mask", "_gt", "_label"])
def test_masks_in_the_same_folder(tmp_path, suffix):
    save(tmp_path / "all" / "000_HC.png", noise())
    save(tmp_path / "all" / f"000_HC{suffix}.png", np.repeat(disc(255)[..., None], 3, axis=-1))
    assert convert(tmp_path, images="all", masks="all") == 0
    assert [case.name for case in training_cases(converted(tmp_path))] == ["000_HC"]
    assert converted(tmp_path).channel_names == ("grey",)
    assert np.array_equal(label(tmp_path, "000_HC"), disc(1))


def test_jpg_images_with_png_masks(pair):
    (pair / "images" / "a.png").unlink()
    save(pair / "images" / "a.jpg", noise(3))
    assert convert(pair) == 0
    assert converted(pair).file_ending == ".png"
    assert np.array_equal(image(pair), read_image(pair / "images" / "a.jpg").array)


def test_alpha_is_left_out_with_a_notice(pair, capsys):
    save(pair / "images" / "a.png", noise(3), "RGBA")
    assert convert(pair) == 0
    assert "1 of 2 images have an alpha channel" in capsys.readouterr().out
    assert image(pair).shape[0] == 3
    with Image.open(converted(pair).folder / "imagesTr" / "a_0000.png") as written:
        assert written.mode == "RGB"


def test_grey_among_colours_becomes_rgb_with_a_notice(pair, capsys):
    save(pair / "images" / "a.png", noise())
    assert convert(pair) == 0
    assert "1 grey and 1 colour images; all are written as RGB" in capsys.readouterr().out
    assert np.array_equal(image(pair)[:, 0], np.stack([noise()] * 3))


def test_sixteen_bits_are_kept(tmp_path):
    deep = np.arange(120, dtype=np.uint16).reshape(SHAPE) * 500
    save(tmp_path / "images" / "a.tif", deep)
    save(tmp_path / "masks" / "a.png", disc(1))
    assert convert(tmp_path) == 0
    assert np.array_equal(image(tmp_path)[0, 0], deep)


def test_palette_masks_keep_their_indices(pair, capsys):
    for name in ("a", "b"):
        mask = Image.fromarray(disc(1, 2))
        mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        mask.save(pair / "masks" / f"{name}.png")
    assert convert(pair, "--labels", "cat", "dog") == 0
    assert dict(converted(pair).labels.values) == {"background": 0, "cat": 1, "dog": 2}
    assert np.array_equal(label(pair), disc(1, 2))
    assert "mapped" not in capsys.readouterr().out


def test_coloured_masks(pair, capsys):
    colours = np.zeros((*SHAPE, 3), np.uint8)
    colours[1], colours[3] = (0, 255, 0), (255, 0, 0)
    save(pair / "masks" / "a.png", colours)
    save(pair / "masks" / "b.png", colours * 0)
    assert convert(pair) == 0
    assert np.array_equal(label(pair), disc(1, 2))
    assert not label(pair, "b").any()
    assert "(0, 255, 0) -> 1, (255, 0, 0) -> 2" in capsys.readouterr().out
    assert tuple(converted(pair).labels.targets) == ("class_1", "class_2")


def test_ignore_label_is_the_highest(pair):
    save(pair / "masks" / "a.png", disc(1, 255))
    save(pair / "masks" / "b.png", disc(1))
    assert convert(pair, "--labels", "cat", "ignore") == 0
    assert converted(pair).labels.ignore == 2


def test_jpg_masks_are_made_black_and_white_again(pair):
    smooth = np.zeros((64, 64), np.uint8)
    smooth[16:48, 16:48] = 255
    for name in ("a", "b"):
        (pair / "masks" / f"{name}.png").unlink()
        save(pair / "images" / f"{name}.png", np.zeros((64, 64), np.uint8))
        save(pair / "masks" / f"{name}.jpg", smooth)
    assert convert(pair) == 0
    assert np.array_equal(label(pair), smooth // 255)


def test_jpg_masks_of_several_classes_are_refused(pair, capsys):
    (pair / "masks" / "a.png").unlink()
    save(pair / "masks" / "a.jpg", disc(100, 120, 140))
    assert "a.jpg: a .jpg mask with values between black and white" in refused(pair, capsys)


def test_images_without_mask_are_listed(pair, capsys):
    for name in ("c", "d"):
        save(pair / "images" / f"{name}.png", noise(3))
    assert "2 of 4 images have no mask: c, d." in refused(pair, capsys)


def test_two_masks_of_one_image(pair, capsys):
    save(pair / "masks" / "a_mask.png", disc(255))
    assert "a has 2 masks (a.png, a_mask.png), expected one" in refused(pair, capsys)


def test_two_images_of_one_name(pair, capsys):
    save(pair / "images" / "a.jpg", noise(3))
    assert "a.jpg and a.png stand for one case" in refused(pair, capsys)


def test_shapes_must_agree(pair, capsys):
    save(pair / "masks" / "b.png", disc(255)[:-1])
    assert "b: image is 12 x 10, mask b.png is 11 x 10" in refused(pair, capsys)


def test_labels_must_fit(pair, capsys):
    save(pair / "masks" / "b.png", disc(128))
    assert "--labels names 1 classes, the masks hold 2 values (128, 255)" in refused(pair, capsys, "--labels", "cat")


def test_empty_masks(pair, capsys):
    for name in ("a", "b"):
        save(pair / "masks" / f"{name}.png", disc())
    assert "masks: all are empty" in refused(pair, capsys)


def test_photographs_are_no_masks(pair, capsys):
    shutil.copytree(pair / "images", pair / "others")
    assert "different values" in refused(pair, capsys, masks="others")


def test_empty_folder(pair, capsys):
    (pair / "empty").mkdir()
    assert "empty: no images found (.png, .jpg" in refused(pair, capsys, images="empty")


def test_several_pages(pair, capsys):
    (pair / "images" / "a.png").unlink()
    page = Image.fromarray(noise())
    page.save(pair / "images" / "a.tif", save_all=True, append_images=[page])
    assert "a.tif: has 2 pages, expected one 2D image" in refused(pair, capsys)


def test_damaged_mask(pair, capsys):
    path = pair / "masks" / "a.png"
    path.write_bytes(path.read_bytes()[:45])
    assert "a.png: cannot be read, the file is truncated or damaged" in refused(pair, capsys)


def test_values_that_name_classes_stay_though_one_is_absent():
    colours = frozenset({(0, 0, 0), (1, 1, 1), (3, 3, 3)})
    assert number_colours(colours, ["a", "b", "c"])[(3, 3, 3)] == 3
    assert number_colours(colours, None)[(3, 3, 3)] == 2


def test_real_ultrasound(tmp_path):
    source = real_data("HC18", "training_set")
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(source.glob("00*_HC*.png")):
        shutil.copy(path, folder)
    assert convert(tmp_path, images="few", masks="few") == 0
    assert converted(tmp_path).num_training == 10
    assert set(np.unique(label(tmp_path, "000_HC"))) == {0, 1}
