"""nnU-Net's 2d configuration on the same raw data: preprocessing, and prediction by an untrained network.

Preprocessing is measured command against command, each with as many processes as there are cores: in short ones, with
few cases, most of the time is the start.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Mapping, Sequence

from autosam_net.data.dataset import training_cases
from autosam_net.files import remove_folder
from benchmarks.measuring import Row, Setting
from benchmarks.peer import Peer, predict_files, run_command, write_part
from benchmarks.prediction import untrained_model

PREDICTED = 2  # cases at most: mirrored, each costs nnU-Net a minute of a core
FASTER = "times as fast as nnunetv2"


def measure(setting: Setting) -> list[Row]:
    """Return the time of preprocessing and predicting a case, ours and theirs, on all cores."""
    part = write_part(setting.dataset, setting.spread_cases(), setting.scratch)
    peer = Peer(part, setting.scratch / "nnunet")
    peer.enter()
    return [*_preprocessing(setting, peer), *_prediction(setting, peer)]


def _preprocessing(setting: Setting, peer: Peer) -> list[Row]:
    folder = setting.scratch / "preprocessed" / peer.part.name
    ours = functools.partial(run_command, "autosam_plan_and_preprocess", "-d", peer.part.name)
    root = ("--root", str(setting.scratch), "--quiet")

    def from_the_beginning() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        ours(*root)

    def planned_before() -> None:
        remove_folder(folder / "cases")
        ours(*root)

    times = setting.in_turn(
        {
            "nnunetv2: fingerprint, plan, preprocess (2d)": peer.plan_and_preprocess,
            "ours: check, measure, plan, preprocess": from_the_beginning,
            "nnunetv2: preprocess (2d)": peer.preprocess,
            "ours: preprocess": planned_before,
        },
        rounds=2,
        warm_up=False,
    )
    count = len(training_cases(peer.part))
    return _beside({name: seconds / count for name, seconds in times.items()}, ("", ">= 2"))


def _prediction(setting: Setting, peer: Peer) -> list[Row]:
    cases = training_cases(peer.part)[:PREDICTED]
    images, target = [file for case in cases for file in case.images], setting.scratch / "predicted"
    plain = untrained_model(setting, ("cnn",), 1)
    posed = dataclasses.replace(plain, poses=setting.plan.encoding.poses)
    network = peer.untrained_network()
    mirrored, straight = peer.predictor(network), peer.predictor(network, mirrored=False)
    times = setting.in_turn(
        {
            "predict, nnunetv2 2d, mirrored (its default)": lambda: predict_files(mirrored, cases, target),
            f"predict, cnn, {len(posed.poses)} poses more (the plan's)": lambda: posed.predict_folder(images, target),
            "predict, nnunetv2 2d, not mirrored": lambda: predict_files(straight, cases, target),
            "predict, cnn, no other pose": lambda: plain.predict_folder(images, target),
        },
        rounds=2,
        warm_up=False,
    )
    return _beside({name: seconds / len(cases) for name, seconds in times.items()})


def _beside(times: Mapping[str, float], goals: Sequence[str] = ("", "")) -> list[Row]:
    """Return rows of seconds a case, of which every second is ours, to be compared with the one before."""
    rows = []
    for (theirs, ours), goal in zip(zip(*[iter(times)] * 2, strict=True), goals, strict=True):
        ratio = times[theirs] / times[ours]
        rows += [Row(theirs, "case", times[theirs]), Row(ours, "case", times[ours], ratio, FASTER, goal)]
    return rows
