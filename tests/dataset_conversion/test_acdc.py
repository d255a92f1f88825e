import pytest

from autosam_net.data.dataset import read_dataset, training_cases
from autosam_net.data.splits import group_cases
from dataset_conversion.acdc import main
from tests.support import real_data


@pytest.fixture
def download(tmp_path, save_volume):
    """A tree shaped like the download: two patients, two labelled frames each, and the file of all frames."""
    for number in (1, 2):
        folder = tmp_path / "ACDC" / "training" / f"patient{number:03d}"
        for frame in (1, 12):
            save_volume(folder / f"{folder.name}_frame{frame:02d}.nii.gz", value=number * 100 + frame)
            save_volume(folder / f"{folder.name}_frame{frame:02d}_gt.nii.gz")
        (folder / f"{folder.name}_4d.nii.gz").write_bytes(b"all frames")
        (folder / "Info.cfg").write_text("ED: 1\nES: 12\n")
    (tmp_path / "ACDC" / "training" / "MANDATORY_CITATION.md").write_text("cite")
    return tmp_path / "ACDC"


@pytest.mark.parametrize("start", [".", "training"])
def test_converts(tmp_path, download, start, capsys):
    assert main(["-i", str(download / start), "--root", str(tmp_path), "--workers", "1"]) == 0
    dataset = read_dataset(tmp_path / "raw" / "Dataset027_ACDC")
    cases = training_cases(dataset)
    assert [case.name for case in cases][:2] == ["patient001_frame01", "patient001_frame12"]
    assert len(cases) == dataset.num_training == 4
    assert dict(dataset.labels.values) == {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
    groups = group_cases([case.name for case in cases], dataset.group_pattern)
    assert set(groups.values()) == {"patient001", "patient002"}
    original = download / "training" / "patient002" / "patient002_frame12.nii.gz"
    assert cases[3].images[0].read_bytes() == original.read_bytes()
    printed = capsys.readouterr().out
    assert "4 training cases of 2 patients" in printed
    assert f"autosam_plan_and_preprocess -d 27 --root {tmp_path}" in printed


def test_testing_folder_is_taken_along(tmp_path, download, save_volume):
    for ending in ("", "_gt"):
        save_volume(download / "testing" / "patient101" / f"patient101_frame01{ending}.nii.gz")
    assert main(["-i", str(download), "--root", str(tmp_path), "--workers", "1"]) == 0
    folder = tmp_path / "raw" / "Dataset027_ACDC"
    assert [path.name for path in (folder / "imagesTs").iterdir()] == ["patient101_frame01_0000.nii.gz"]
    assert [path.name for path in (folder / "labelsTs").iterdir()] == ["patient101_frame01.nii.gz"]


def refused(tmp_path, source, capsys) -> str:
    assert main(["-i", str(source), "--root", str(tmp_path)]) == 2
    assert not list((tmp_path / "raw").glob("*"))
    text = capsys.readouterr().err.strip()
    assert "\n" not in text
    return text


def test_missing_labels(tmp_path, download, capsys):
    (download / "training" / "patient002" / "patient002_frame12_gt.nii.gz").unlink()
    text = refused(tmp_path, download, capsys)
    assert "patient002_frame12" in text
    assert "patient002_frame12_gt.nii.gz" in text


def test_empty_folder(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no files patientNNN/patientNNN_frameMM.nii.gz" in refused(tmp_path, tmp_path / "empty", capsys)


def test_no_folder(tmp_path, capsys):
    assert "nowhere: no such folder" in refused(tmp_path, tmp_path / "nowhere", capsys)


def test_mixed_endings(tmp_path, download, save_volume, capsys):
    for ending in ("", "_gt"):
        save_volume(download / "training" / "patient003" / f"patient003_frame01{ending}.nii")
    assert "both .nii and .nii.gz" in refused(tmp_path, download, capsys)


def test_second_conversion_is_refused(tmp_path, download, capsys):
    arguments = ["-i", str(download), "--root", str(tmp_path), "--workers", "1"]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "Dataset027_ACDC exists. Give --overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_real_download(tmp_path):
    assert main(["-i", str(real_data("ACDC")), "--root", str(tmp_path)]) == 0
    dataset = read_dataset(tmp_path / "raw" / "Dataset027_ACDC")
    names = [case.name for case in training_cases(dataset)]
    assert len(names) == dataset.num_training == 200
    assert len(set(group_cases(names, dataset.group_pattern).values())) == 100
