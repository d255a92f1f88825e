"""TIFF files of every kind of number, as stacks, in colours, with channels, with a sidecar."""

import json
import logging

import numpy as np
import pytest
import tifffile
from PIL import Image

from autosam_net.data.volume import Geometry
from autosam_net.errors import ImageFileError
from autosam_net.imageio import read_image, read_label, write_label

NUMBERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


def numbers(shape, dtype):
    random = np.random.default_rng(0)
    if dtype.startswith("float"):
        return random.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_stacks_keep_every_kind_of_number(tmp_path, dtype, compression):
    stack = numbers((7, 6, 5), dtype)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression=compression)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [5, 0.5, 0.25]}))
    volume = read_image(tmp_path / "a.tif")
    assert np.array_equal(volume.array[0], stack.astype(np.float32))
    assert volume.geometry.spacing == (5.0, 0.5, 0.25)


@pytest.mark.parametrize("slices", [3, 4])
def test_few_slices_that_were_saved_as_planes_are_slices_by_their_sidecar(tmp_path, slices):
    stack = numbers((slices, 6, 5), "uint16")  # without more words tifffile (and nnU-Net) saves such as colours
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb", planarconfig="separate")
    assert read_image(tmp_path / "a.tif").array.shape == (3, 1, 6, 5)  # a fourth is taken for alpha
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [5, 0.5, 0.25]}))
    assert np.array_equal(read_label(tmp_path / "a.tif").array[0], stack)


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_stacks_of_colours(tmp_path, dtype, planes):
    stack = numbers((4, 3, 6, 5), dtype)
    saved = stack if planes == "separate" else np.moveaxis(stack, 1, -1)
    tifffile.imwrite(tmp_path / "a.tif", saved, photometric="rgb", planarconfig=planes)
    assert np.array_equal(read_image(tmp_path / "a.tif").array, np.moveaxis(stack, 1, 0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_of_a_stack_is_dropped(tmp_path, dtype, caplog):
    stack = numbers((2, 6, 5, 4), dtype)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb", extrasamples=["unassalpha"])
    with caplog.at_level(logging.INFO):
        assert np.array_equal(read_image(tmp_path / "a.tif").array, np.moveaxis(stack, -1, 0)[:3])
    assert "a.tif: the alpha channel" in caplog.text


@pytest.mark.parametrize("kind", ["imagej", "ome"])
@pytest.mark.parametrize(("axes", "shape"), [("ZCYX", (4, 2, 6, 5)), ("CYX", (2, 6, 5)), ("ZYX", (4, 6, 5))])
def test_channels_of_microscopy(tmp_path, kind, axes, shape):
    saved = numbers(shape, "uint16")
    tifffile.imwrite(tmp_path / "a.tif", saved, metadata={"axes": axes}, **{kind: True})
    expected = {"ZCYX": np.moveaxis(saved, 0, 1) if axes == "ZCYX" else None, "CYX": saved[:, None], "ZYX": saved[None]}
    assert np.array_equal(read_image(tmp_path / "a.tif").array, expected[axes])


def test_time_frames_of_volumes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbers((2, 3, 6, 5), "uint8"), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(ImageFileError, match=r"a\.tif: has the axes TZYX, time frames .* Save each time frame as a"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_truncated_stacks_are_refused(tmp_path, compression, dtype):
    tifffile.imwrite(tmp_path / "a.tif", numbers((7, 60, 50), dtype), compression=compression)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: int(len(content) * 0.8)])
    with pytest.raises(ImageFileError, match="truncated or damaged"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a", "a_0000"])
def test_stack_takes_its_spacing_from_the_sidecar(tmp_path, name):
    pages = [Image.fromarray(np.full((4, 5), value, np.uint8)) for value in (1, 2, 3)]
    pages[0].save(tmp_path / f"{name}.tif", save_all=True, append_images=pages[1:])
    volume = read_image(tmp_path / f"{name}.tif")
    assert volume.array.shape == (1, 3, 4, 5)
    assert volume.array[0, :, 0, 0].tolist() == [1, 2, 3]
    assert (volume.geometry.spacing, volume.geometry.calibrated) == ((1.0, 1.0, 1.0), False)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [5, 0.5, 0.25]}))
    geometry = read_image(tmp_path / f"{name}.tif").geometry
    assert (geometry.spacing, geometry.calibrated, geometry.dimensions) == ((5.0, 0.5, 0.25), True, 3)


@pytest.mark.parametrize("content", ["{}", "no", '{"spacing": [1, 2]}', '{"spacing": 3}'])
def test_wrong_sidecar(tmp_path, content):
    write_label(tmp_path / "a.tif", np.zeros((2, 3, 4), np.uint8), Geometry((5.0, 2.0, 2.0)))
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ImageFileError, match=r"a\.json: expected \{\"spacing\""):
        read_image(tmp_path / "a.tif")


def test_label_stack_round_trip(tmp_path):
    labels = np.arange(24).reshape(2, 3, 4)
    write_label(tmp_path / "a.tif", labels, Geometry((5.0, 1.5, 1.5)))
    again = read_label(tmp_path / "a.tif")
    assert np.array_equal(again.array[0], labels)
    assert again.geometry.spacing == (5.0, 1.5, 1.5)


def test_pages_of_different_shape_are_refused(tmp_path):
    pages = [Image.fromarray(np.zeros(shape, np.uint8)) for shape in ((4, 5), (4, 6))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageFileError, match="2 pages differ in shape"):
        read_image(tmp_path / "a.tif")


def test_a_page_with_a_sidecar_has_a_spacing(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbers((6, 5), "uint8"))
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [5, 0.5, 0.25]}))
    geometry = read_image(tmp_path / "a.tif").geometry
    assert (geometry.spacing, geometry.calibrated) == ((5.0, 0.5, 0.25), True)
