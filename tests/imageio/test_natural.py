import logging

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from autosam_net.data.volume import Geometry
from autosam_net.errors import ImageFileError
from autosam_net.imageio import read_case, read_image, read_label
from autosam_net.imageio.natural import write_picture


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_colours_become_channels(tmp_path, colours, ending):
    Image.fromarray(colours).save(tmp_path / f"a{ending}")
    volume = read_image(tmp_path / f"a{ending}")
    assert volume.array.shape == (3, 1, 6, 5)
    assert np.array_equal(volume.array[:, 0], np.moveaxis(colours, -1, 0))
    assert volume.geometry == Geometry((1.0, 1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0), 2, calibrated=False)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("P", 3), ("CMYK", 3), ("F", 1)])
def test_modes(tmp_path, colours, mode, channels):
    Image.fromarray(colours).convert(mode).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").array.shape == (channels, 1, 6, 5)


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 3), ("LA", 1)])
def test_alpha_is_dropped_with_a_notice(tmp_path, colours, mode, channels, caplog):
    Image.fromarray(colours).convert(mode).save(tmp_path / "a.png")
    with caplog.at_level(logging.INFO):
        assert read_case([tmp_path / "a.png"]).array.shape == (channels, 1, 6, 5)
    assert "a.png: the alpha channel" in caplog.text


def test_palette_is_colours_in_an_image_and_indices_in_a_label(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(indices)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])  # from grey to palette, the values stay
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").array[:, 0, 0, 1].tolist() == [255, 0, 0]
    assert np.array_equal(read_label(tmp_path / "a.png").array[0, 0], indices)


def test_transparent_palette(tmp_path, colours):
    Image.fromarray(colours).quantize(4).save(tmp_path / "a.png", transparency=bytes([0, 128, 255, 255]))
    assert read_image(tmp_path / "a.png").array.shape == (3, 1, 6, 5)


def test_one_bit_masks_are_zero_and_one(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "a.png")
    assert np.array_equal(read_label(tmp_path / "a.png").array[0, 0], np.eye(4))


def test_equal_channels_are_one_label_map(tmp_path, colours):
    Image.fromarray(np.repeat(colours[..., :1], 3, axis=-1)).save(tmp_path / "a.png")
    assert np.array_equal(read_label(tmp_path / "a.png").array[0, 0], colours[..., 0])
    Image.fromarray(colours).save(tmp_path / "b.png")
    with pytest.raises(ImageFileError, match=r"b\.png: label file has 3 channels that differ.*autosam_convert_images"):
        read_label(tmp_path / "b.png")


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_are_kept(tmp_path, ending):
    grey = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3000
    Image.fromarray(grey).save(tmp_path / f"a{ending}")
    assert np.array_equal(read_image(tmp_path / f"a{ending}").array[0, 0], grey)
    deep = np.stack([grey, grey + 1, grey + 2], axis=-1)
    sitk.WriteImage(sitk.GetImageFromArray(deep, isVector=True), str(tmp_path / f"b{ending}"))
    assert np.array_equal(read_image(tmp_path / f"b{ending}").array[:, 0], np.moveaxis(deep, -1, 0))


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("part", [0.0, 0.5])
def test_truncated_images_are_refused(tmp_path, ending, part):
    path = tmp_path / f"a{ending}"
    noise = np.random.default_rng(0).integers(0, 256, (60, 50, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path, **({"compression": "tiff_lzw"} if ending == ".tif" else {}))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    for read in (read_image, read_label):
        with pytest.raises(ImageFileError, match=r"truncated or damaged.*Copy or download it again"):
            read(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_written_without_loss(tmp_path, dtype, channels):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (channels, 1, 6, 5)).astype(dtype)
    write_picture(tmp_path / "a.png", array)
    assert np.array_equal(read_image(tmp_path / "a.png").array, array)


def test_float_pictures_are_refused(tmp_path):
    with pytest.raises(ImageFileError, match=r"1 channels of float32 cannot become a \.png"):
        write_picture(tmp_path / "a.png", np.zeros((1, 1, 2, 2), np.float32))
