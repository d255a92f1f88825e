"""The loop of every training: batches drawn ahead, steps, epochs with log and checkpoint, a time limit, a safe stop."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from autosam_net.encoders.tuning import count_parameters
from autosam_net.errors import ModelError
from autosam_net.parallel import progress
from autosam_net.training.ahead import drawn_ahead
from autosam_net.training.checkpoint import TrainingState, restore_checkpoint, save_checkpoint
from autosam_net.training.curves import MEASURES, write_log
from autosam_net.training.signals import StopRequest
from autosam_net.training.team import Team

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Learn = Callable[[nn.Module, Item], tuple[torch.Tensor, Mapping[str, float]]]
"""Returns the loss of what was drawn, and what else is to be logged of it, of names in `curves.MEASURES`."""

PACED_EPOCHS = 5  # the last ones, by which a time limit is kept
WARM_UP = 25  # iterations; within the first epoch, whose length no time limit changes


@dataclass(frozen=True)
class Course:
    """What stays the same while a network is trained.

    Attributes:
        folder: for log and checkpoint.
        digest: of all that the result depends on, the length of the training left out.
        iterations: of an epoch.
        rate: (iteration, epochs) -> learning rate.
        deadline: of the monotonic clock, in seconds.
        cure: what to do where the loss is no number.
        drawing_processes: that draw batches; 0 for a thread.
    """

    folder: Path
    digest: str
    iterations: int
    rate: Callable[[int, int], float]
    deadline: float
    cure: str
    drawing_processes: int = 0
    team: Team = field(default_factory=Team)

    @property
    def checkpoint(self) -> Path:
        """Return the file of the state to go on from."""
        return self.folder / "checkpoint.safetensors"

    def resume(self, state: TrainingState, epochs: int | None) -> None:
        """Go on from the checkpoint, if there is one, up to the epoch it was made for or another that is asked for.

        Raises:
            ModelError: it is of another training, or damaged.
        """
        if self.checkpoint.exists():
            restore_checkpoint(self.checkpoint, state, self.digest)
            state.epochs = epochs or state.epochs
            log.info("going on after iteration %d", state.iteration)

    def save(self, state: TrainingState) -> None:
        """Write the checkpoint, in one of several processes."""
        if self.team.leads:
            save_checkpoint(self.checkpoint, state, self.digest)


def optimize(course: Course, state: TrainingState, draw: Callable[[int], Item], learn: Learn[Item]) -> None:
    """Train until the last epoch is done, which a time limit may move; Ctrl-C and SIGTERM leave a checkpoint.

    Args:
        draw: returns the batch of an iteration, and depends on its number alone.

    Raises:
        ModelError: the loss is no number.
    """
    for part, count in count_parameters(state.model).items():
        log.info("%s: %d of %d parameters learn", part, count["trained"], count["all"])
    team, model = course.team, course.team.wrapped(state.model.train())
    clock = time.monotonic()
    with StopRequest() as stop, closing(drawn_ahead(draw, state.iteration, course.drawing_processes)) as drawn:
        for _ in _iterations_left(state, course.iterations):
            rate = course.rate(state.iteration, state.epochs)
            loss, measures = learn(model, next(drawn))
            step(state, team.scaled(loss), rate)
            _account(state, loss.item(), measures)
            clock, before = time.monotonic(), clock  # what saving an epoch took counts for the next
            state.seconds += clock - before
            if state.iteration % course.iterations == 0:
                _finish_epoch(course, state, rate)
            stop.signal_number = team.agreed(stop.signal_number or 0, max) or None  # they stop after the same iteration
            if stop.signal_number is not None:
                course.save(state)
                log.warning("%s: saved after iteration %d; the same command goes on", course.folder, state.iteration)
                stop.raise_if_requested()
        stop.raise_if_requested()  # between the last iteration and here


def learning_rate(iteration: int, total: int, highest: float) -> float:
    """Return the rate of an iteration: linear warm-up, then half a cosine down to zero."""
    return highest * min(1.0, (iteration + 1) / WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * iteration / total))


def step(state: TrainingState, loss: torch.Tensor, rate: float) -> None:
    """Change what learns, each group of parameters at its `factor` times the rate."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step()
    state.iteration += 1


def _iterations_left(state: TrainingState, length: int) -> Iterator[None]:
    """Count the iterations up to the end of the last epoch, which a time limit may move, behind a bar an epoch."""
    while state.iteration < state.epochs * length:
        left = length - state.iteration % length
        title = f"epoch {state.iteration // length + 1}/{state.epochs}"
        yield from progress([None] * left, title, left, "iteration", brief=True)


def pace_of(rows: Sequence[Mapping[str, float]]) -> float:
    """Return the seconds that an epoch takes; one that something held up must not shorten all that follow.

    Args:
        rows: of the log so far.
    """
    return statistics.median(row["seconds"] for row in rows[-PACED_EPOCHS:])


def _account(state: TrainingState, loss: float, measures: Mapping[str, float]) -> None:
    for name, value in {"loss": loss, **measures, "iterations": 1.0}.items():
        state.sums[name] = state.sums.get(name, 0.0) + value


def _finish_epoch(course: Course, state: TrainingState, rate: float) -> None:
    done = state.iteration // course.iterations
    spent = state.seconds - sum(row["seconds"] for row in state.log)
    count = state.sums.pop("iterations")
    row = {"epoch": done, "iteration": state.iteration, "learning_rate": rate, "seconds": spent}
    row |= {name: total / count for name, total in state.sums.items()}
    if not math.isfinite(row["loss"]):
        raise ModelError(f"{course.folder}: the loss is {row['loss']} in epoch {done}. {course.cure}")
    state.log.append({name: round(value, 6) for name, value in row.items()})
    state.sums.clear()
    pace = pace_of(state.log)
    if course.deadline < math.inf:
        affordable = course.team.agreed(done + max(0, int((course.deadline - time.monotonic()) / pace)), min)
        if affordable < state.epochs:
            log.info("the time limit allows %d of %d epochs", affordable, state.epochs)
            state.epochs = affordable
    if course.team.leads:
        write_log(course.folder, state.log)
    course.save(state)  # last: what is written before is written again after a kill
    measures = "".join(f", {title} {row[name]:.3f}" for name, title in MEASURES.items() if name in row)
    log.info(
        "epoch %d/%d: loss %.3f%s, %.0f s (%.0f s left)",
        *(done, state.epochs, row["loss"], measures, spent, pace * (state.epochs - done)),
    )
