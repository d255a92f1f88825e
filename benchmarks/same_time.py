"""`python -m benchmarks.same_time`: the same wall time on the same labelled patients, ours and nnU-Net's, and the Dice.

Ours is `autosam_train DATASET CONFIGURATION FOLD --labelled N --seed S` with nothing encoded before; its time is that
of encoding and training. nnU-Net's 2d trainer, its own plan, augmentation and loss, then trains as long on the same
cases, its start and its preprocessing not counted, its learning rate falling with the time that is left. Both predict
the fold's validation cases, and both are evaluated on the raw grid by `autosam_net.evaluation`. Each side runs in a
process of its own, one after the other, on all cores. `--trained FOLDER --minutes M` takes a fold that was trained and
validated before instead, and gives nnU-Net so many minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from autosam_net.data.dataset import CaseFiles, training_cases
from autosam_net.data.plan import Plan
from autosam_net.evaluation.report import Summary, evaluate_pairs
from autosam_net.inference.validate import validate_fold
from autosam_net.paths import Folders
from autosam_net.process import prepare_process
from autosam_net.training.cases import training_split
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from benchmarks.measuring import Row, Setting, table
from benchmarks.peer import Peer, predict_files, write_part

Result = TypeVar("Result")


@dataclass(frozen=True)
class Contest:
    """What both sides are given.

    Attributes:
        setting: the planned data set, and a scratch folder for all that is written.
        validated: at most so many of the fold's validation cases are predicted; all if None.
    """

    setting: Setting
    configuration: str
    fold: str
    options: TrainingOptions
    validated: int | None

    @property
    def folders(self) -> Folders:
        """Return folders with the preprocessed cases of the setting, an empty cache, and no results."""
        return replace(
            self.setting.folders, preprocessed=self.setting.scratch / "ours", results=self.setting.scratch / "results"
        )

    @property
    def plan(self) -> Plan:
        """Return the plan as the configuration follows it."""
        return self.setting.plan.for_configuration(self.configuration)

    @property
    def validation_cases(self) -> tuple[str, ...]:
        """Return the cases on which both are compared."""
        return self.split[1][: self.validated]

    @property
    def split(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the training and the validation cases."""
        split = training_split(self.setting.dataset, self.fold, self.options, self.setting.folders)
        return tuple(split.train), tuple(split.val)

    def share_cases(self) -> None:
        """Let `folders` see the preprocessed cases of the setting, beside a cache of their own."""
        source, target = (
            place.preprocessed / self.setting.dataset.name for place in (self.setting.folders, self.folders)
        )
        target.mkdir(parents=True, exist_ok=True)
        for name in ("cases", "splits_final.json", "dataset_fingerprint.json"):
            if not (target / name).exists():
                (target / name).symlink_to((source / name).resolve())

    def train(self) -> Path:
        """Encode what the cache lacks and train; return the fold's folder."""
        return train_head(self.setting.dataset, self.plan, self.configuration, self.fold, self.options, self.folders)

    def validated_dice(self, folder: Path) -> float:
        """Return the mean Dice of the validation cases, predicted by the head in a fold's folder."""
        cases = self.validation_cases
        return mean_dice(validate_fold(self.setting.dataset, self.plan, folder, cases, "cpu", self.folders))

    def files(self, names: tuple[str, ...]) -> list[CaseFiles]:
        """Return the raw files of cases."""
        known = {case.name: case for case in training_cases(self.setting.dataset)}
        return [known[name] for name in names]


@dataclass(frozen=True)
class Score:
    """What a side reached.

    Attributes:
        seconds: of training, ours with the encoding.
        steps: batches that it learnt from.
    """

    seconds: float
    steps: int
    dice: float


def main() -> int:
    """Let both train and print the table."""
    parser = contest_parser("same_time", __doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the draw of patients (default: %(default)s)")
    parser.add_argument("--max-minutes", type=float, help="of our encoding and training (default: as planned)")
    parser.add_argument("--cpu-time", action="store_true", help="of the process that learns, where the machine is busy")
    parser.add_argument("--trained", type=Path, help="our fold's folder, trained and validated before; needs --minutes")
    parser.add_argument("--minutes", type=float, help="for nnU-Net, beside --trained")
    arguments = parser.parse_args()
    if (arguments.trained is None) != (arguments.minutes is None):
        parser.error("--trained and --minutes need each other")
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    options = TrainingOptions(arguments.labelled, seed=arguments.seed, max_minutes=arguments.max_minutes)
    prepare_process()
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(arguments.root, arguments.dataset, Path(scratch), 0, clock)
        contest = Contest(setting, arguments.configuration, arguments.fold, options, arguments.cases)
        if arguments.trained:
            ours = apart(trained_before, contest, arguments.trained, 60 * arguments.minutes)
        else:
            ours = apart(train_ours, contest)
        print(f"ours: {ours}", file=sys.stderr, flush=True)
        theirs = apart(train_theirs, contest, ours.seconds)
    print("\n".join(table(rows_of(ours, theirs))))
    return 0


def contest_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what every contest is told: the data, the configuration, and the patients."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True, help="folder with raw/ and preprocessed/; only read")
    parser.add_argument("-d", "--dataset", required=True, help="number or name of a data set that is planned there")
    parser.add_argument("-c", "--configuration", default="cnn", help="of the plan (default: %(default)s)")
    parser.add_argument("--fold", default="0", help="default: %(default)s")
    parser.add_argument("--labelled", type=int, default=1, help="patients to learn from (default: %(default)s)")
    parser.add_argument("--cases", type=int, help="validation cases to compare on (default: all of the fold)")
    return parser


def apart(work: Callable[..., Result], *arguments: object) -> Result:
    """Return what `work` returns in a fresh process, with no threads of another."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=prepare_process) as pool:
        return pool.submit(_quietly, work, *arguments).result()


def _quietly(work: Callable[..., Result], *arguments: object) -> Result:
    """Return what `work` returns; what it prints goes where messages go, so that the table stands alone."""
    with redirect_stdout(sys.stderr):
        return work(*arguments)


def rows_of(ours: Score, theirs: Score) -> list[Row]:
    """Return the table: Dice of each, and the difference."""
    return [
        Row(f"nnunetv2 2d, {theirs.steps} steps", "training", theirs.seconds, theirs.dice, "mean Dice"),
        Row(f"ours, {ours.steps} steps, encoding included", "training", ours.seconds, ours.dice, "mean Dice"),
        Row("difference", ratio=ours.dice - theirs.dice, to="more than nnunetv2", goal=">= 0.25"),
    ]


def train_ours(contest: Contest) -> Score:
    """Encode, train and validate a head; nothing is encoded before."""
    clock = contest.setting.clock
    contest.share_cases()
    start = clock()
    folder = contest.train()
    seconds = clock() - start
    return Score(seconds, steps_of(folder), contest.validated_dice(folder))


def trained_before(contest: Contest, folder: Path, seconds: float) -> Score:
    """Return the score of a fold's folder, as if it had taken the seconds that nnU-Net is given."""
    cases = contest.files(contest.validation_cases)
    files = [folder / "validation" / (case.name + contest.setting.dataset.file_ending) for case in cases]
    return Score(seconds, steps_of(folder), dice_of(contest, files))


def dice_of(contest: Contest, files: Sequence[Path]) -> float:
    """Return the mean Dice of the validation cases' predicted label maps."""
    cases = contest.files(contest.validation_cases)
    pairs = [(case.name, case.label, file) for case, file in zip(cases, files, strict=True) if case.label is not None]
    return mean_dice(evaluate_pairs(pairs, contest.setting.plan.label_set))


def steps_of(folder: Path) -> int:
    """Return the iterations that a fold's run.json tells of."""
    from autosam_net.jsonio import read_json

    steps: int = read_json(folder / "run.json")["iterations"]
    return steps


def mean_dice(summary: Summary) -> float:
    """Return the mean over the classes, 0 where it is defined for none."""
    return summary.foreground_mean["Dice"] or 0.0


def train_theirs(contest: Contest, seconds: float) -> Score:
    """Let nnU-Net plan, preprocess (neither counted) and train for `seconds`, and predict."""
    import torch

    root = contest.setting.scratch / "theirs"
    train, _ = contest.split
    peer = Peer(write_part(contest.setting.dataset, contest.files(train), root), root / "nnunet")
    peer.enter()
    peer.plan_and_preprocess()
    torch.manual_seed(contest.options.seed)
    trainer = peer.trainer()
    trainer.on_train_start()
    steps = learn(trainer, seconds, contest.setting.clock)
    print(f"theirs: {steps} steps in {seconds:.0f} s", file=sys.stderr, flush=True)
    trainer.on_train_end()
    trainer.set_deep_supervision_enabled(False)
    cases = contest.files(contest.validation_cases)
    files = predict_files(peer.predictor(trainer.network), cases, root / "predicted")
    return Score(seconds, steps, dice_of(contest, files))


def learn(trainer: Any, seconds: float, clock: Callable[[], float]) -> int:
    """Train for so many seconds, at nnU-Net's rate (1 - progress) ** 0.9 of the first; return the number of steps."""
    trainer.network.train()
    begin, steps = clock(), 0
    while (spent := clock() - begin) < seconds:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - spent / seconds) ** 0.9
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    return steps


if __name__ == "__main__":
    sys.exit(main())
