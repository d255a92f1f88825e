import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autosam_net.data.volume import Geometry
from autosam_net.errors import ImageFileError
from autosam_net.imageio import read_image, read_label, write_label
from tests.support import real_data


@pytest.fixture
def image():
    array = np.random.default_rng(0).integers(0, 1000, (6, 40, 50)).astype(np.int16)
    return sitk.GetImageFromArray(array)


def save(image, path, compress=True) -> Path:
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


@pytest.mark.parametrize("offset", [float("inf"), float("nan"), -1e9, 1e30])
def test_voxels_that_begin_nowhere_are_refused(tmp_path, image, offset):
    path = save(image, tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 108, offset)
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=r"its voxels begin at byte|header announces"):
        read_image(path)


@pytest.mark.parametrize("part", [0, 10, 0.5, -4])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_truncated_nifti_is_refused(tmp_path, image, ending, part):
    path = save(image, tmp_path / f"a{ending}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part) if part == 0.5 else part])
    with pytest.raises(ImageFileError, match=r"a\.nii.*truncated or damaged.*Copy or download it again") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_whole_gzip_of_a_truncated_nifti_is_refused(tmp_path, image):
    plain = save(image, tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(plain[:5000]))
    with pytest.raises(ImageFileError, match=r"header announces 24352 bytes, found 5000"):
        read_image(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_damaged_compressed_file_is_refused(tmp_path, image, ending):
    path = save(image, tmp_path / f"a{ending}")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(byte ^ 0x5A for byte in content[middle : middle + 50])
    path.write_bytes(bytes(content))
    with pytest.raises(ImageFileError, match="truncated or damaged"):
        read_image(path)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_truncated_others_are_refused(tmp_path, image, ending, compress):
    path = save(image, tmp_path / f"a{ending}", compress)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ImageFileError, match="truncated or damaged"):
        read_image(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd", ".mhd"])
def test_other_content_is_refused(tmp_path, ending):
    (tmp_path / f"a{ending}").write_bytes(b"<html>not found</html>" * 30)
    with pytest.raises(ImageFileError, match="truncated or damaged"):
        read_image(tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_fourth_axis_holds_channels(tmp_path, image, ending):
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((1.0, 2.0, 3.0))
    image.SetDirection((0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    volume = read_image(save(sitk.JoinSeries([image, image + 1]), tmp_path / f"a{ending}"))
    alone = read_image(save(image, tmp_path / f"b{ending}"))
    assert volume.array.shape == (2, 6, 40, 50)
    assert np.array_equal(volume.array[0], alone.array[0])
    assert np.array_equal(volume.array[1], alone.array[0] + 1)
    assert volume.geometry.dimensions == 3
    assert np.allclose(volume.geometry.spacing, alone.geometry.spacing)
    assert np.allclose(volume.geometry.origin, alone.geometry.origin)
    assert np.allclose(volume.geometry.direction, alone.geometry.direction)


def test_more_axes_are_explained(tmp_path, image):
    path = save(sitk.JoinSeries([sitk.Compose([image, image])] * 2), tmp_path / "a.nrrd")
    expected = r"4 dimensions \(50 x 40 x 6 x 2\) of several components, expected 2 or 3, .*CASE_0000, CASE_0001"
    with pytest.raises(ImageFileError, match=expected):
        read_image(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_flat_images_of_several_channels(tmp_path, image, ending):
    flat = image[:, :, 2]
    array = read_image(save(sitk.Compose([flat, flat + 1, flat + 2]), tmp_path / f"a{ending}")).array
    assert array.shape == (3, 1, 40, 50)
    assert np.array_equal(array[2, 0], sitk.GetArrayFromImage(flat) + 2)


def test_a_fourth_axis_of_one_is_none(tmp_path, image):
    path = save(sitk.JoinSeries([image]), tmp_path / "a.nii.gz")
    assert read_image(path).shape == (6, 40, 50)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_components_become_channels(tmp_path, image, ending):
    path = save(sitk.Compose([image, image + 1]), tmp_path / f"a{ending}")
    array = read_image(path).array
    assert array.shape == (2, 6, 40, 50)
    assert np.array_equal(array[0] + 1, array[1])


def test_axes_are_turned_round(tmp_path, image):
    image.SetSpacing((0.5, 0.75, 3.0))
    volume = read_image(save(image, tmp_path / "a.nrrd"))
    assert volume.geometry.spacing == (3.0, 0.75, 0.5)
    assert volume.array[0, 5, 30, 20] == image[20, 30, 5]


def test_header_and_separate_data_can_be_read(tmp_path, image):
    path = save(image, tmp_path / "a.mhd", compress=False)
    assert np.array_equal(read_image(path).array[0], sitk.GetArrayFromImage(image))
    with pytest.raises(ImageFileError, match="cannot hold a label map"):
        write_label(path, np.zeros((1, 2, 2), np.uint8), Geometry((1.0, 1.0, 1.0)))


def test_labels_saved_as_float_are_read(tmp_path, image):
    path = save(sitk.Cast(image, sitk.sitkFloat32), tmp_path / "a.nii.gz")
    assert np.issubdtype(read_label(path).array.dtype, np.integer)
    with pytest.raises(ImageFileError, match="expected whole numbers"):
        read_label(save(sitk.Cast(image, sitk.sitkFloat32) + 0.25, tmp_path / "b.nii.gz"))


def test_two_channels_are_no_label(tmp_path, image):
    path = save(sitk.Compose([image, image + 1]), tmp_path / "a.nii.gz")
    with pytest.raises(ImageFileError, match="2 channels that differ"):
        read_label(path)


def test_real_volume_round_trip(tmp_path, capfd):
    source = real_data("ACDC", "training", "patient001")
    label = read_label(source / "patient001_frame01_gt.nii.gz")
    assert label.array.shape[0] == 1
    assert set(np.unique(label.array)) == {0, 1, 2, 3}
    write_label(tmp_path / "a.nii.gz", label.array[0], label.geometry)
    again = read_label(tmp_path / "a.nii.gz")
    assert np.array_equal(again.array, label.array)
    assert np.allclose(again.geometry.spacing, label.geometry.spacing)
    assert np.allclose(again.geometry.origin, label.geometry.origin, atol=1e-3)
    assert np.allclose(again.geometry.direction, label.geometry.direction, atol=1e-6)
    read_image(source / "patient001_frame01.nii.gz")
    assert "sform" not in capfd.readouterr().err
