"""Prompts: what a user, or a reference in the user's place, tells of each class in each slice.

A prompts.json for `autosam_predict --prompts`:

    {"version": 1, "prompts": [
        {"case": "patient101_frame01", "slice": 4, "label": "LV", "box": [98, 110, 131, 142]},
        {"case": "patient101_frame01", "slice": 4, "label": "RV", "foreground": [[70, 120]], "background": [[99, 120]]},
        {"case": "patient101_frame01", "slice": 4, "label": "MYO", "box": [91, 103, 138, 149],
         "hole": {"box": [98, 110, 131, 142]}}
    ]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from autosam_net.errors import PlanError
from autosam_net.jsonio import SPARSE, from_json, read_json, write_json
from autosam_net.registry import suggest

PROMPTS_FILE = "prompts.json"
PROMPTS_VERSION = 1
PROMPT_KINDS = ("box", "point", "both")
PromptKind = Literal["box", "point", "both"]
Point = tuple[float, float]

NO_TOKEN, NO_POINT, BACKGROUND, FOREGROUND, FIRST_CORNER, LAST_CORNER = range(-2, 4)
"""What a token (x, y, mark) stands for: SAM's own numbers, and -2 where there are fewer tokens than places."""


@dataclass(frozen=True)
class PromptOptions:
    """How prompts are drawn from references.

    Attributes:
        kind: "box", around all of a class in a slice, "point", in the foreground, or both.
        points: with points: the first lies deepest inside, the others anywhere in the class, at random.
        jitter: with boxes: each side is moved by up to so many pixels of the encoder input, in or out, at random.
        seed: of what is drawn at random.
        holes: a class that encloses a hole in a slice is prompted twice, filled and for its hole; its mask is the
            first less the second.
        training_jitter: replaces a smaller `jitter` while a head is trained, since users' boxes are not exact either;
            MedSAM's 5 of 256 pixels.
    """

    kind: PromptKind = "box"
    points: int = 1
    jitter: int = 0
    seed: int = 0
    holes: bool = False
    training_jitter: int = 5

    @property
    def in_training(self) -> PromptOptions:
        """Return the settings with which prompts for training are drawn."""
        return replace(self, jitter=max(self.jitter, self.training_jitter)) if self.has_box else self

    @property
    def has_box(self) -> bool:
        """Return whether there are boxes."""
        return self.kind != "point"

    @property
    def has_points(self) -> bool:
        """Return whether there are points."""
        return self.kind != "box"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return "box", "point" or both."""
        return ("box", "point") if self.kind == "both" else (self.kind,)

    @property
    def problem(self) -> str | None:
        """Return what is wrong with the settings, if anything."""
        if self.points < 1:
            return f"points {self.points}: give a number above 0"
        for name in ("jitter", "training_jitter"):
            if getattr(self, name) < 0:
                return f"{name} {getattr(self, name)}: give 0 or a number of pixels above it"
        if not self.has_points and self.points > 1:
            return f"points {self.points} goes with point or both; leave it out, or ask for points"
        if not self.has_box and self.jitter > 0:
            return f"jitter {self.jitter} goes with box or both; leave it out, or ask for boxes"
        return None

    @property
    def in_words(self) -> str:
        """Return such as "box prompts" or "box and 3 point prompts, jitter 2, holes apart"."""
        points = "point" if self.points == 1 else f"{self.points} point"
        parts = [" and ".join(points if kind == "point" else kind for kind in self.kinds) + " prompts"]
        parts += [f"jitter {self.jitter}"] * (self.jitter > 0) + ["holes apart"] * self.holes
        return ", ".join(parts)

    @property
    def run_name(self) -> str:
        """Return the end of a folder's name: `box`, `box_holes` or `point_points3_seed1`."""
        parts: list[str] = [self.kind]
        parts += [f"points{self.points}"] * (self.points > 1) + [f"jitter{self.jitter}"] * (self.jitter > 0)
        return "_".join(parts + [f"seed{self.seed}"] * (self.seed > 0) + ["holes"] * self.holes)

    def of_kind(self, kind: PromptKind) -> PromptOptions:
        """Return the same settings for another kind, without those that it has no use for."""
        other = replace(self, kind=kind)
        return replace(
            other, points=other.points if other.has_points else 1, jitter=other.jitter if other.has_box else 0
        )


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What tells where one mask is; pixels are counted from 0, x along rows and y along columns of the slice.

    Attributes:
        box: first and last column and row, x, y, x, y.
        foreground, background: points x, y in the mask, and beside it.
    """

    box: tuple[float, float, float, float] | None = field(default=None, metadata=SPARSE)
    foreground: tuple[Point, ...] = field(default=(), metadata=SPARSE)
    background: tuple[Point, ...] = field(default=(), metadata=SPARSE)

    @property
    def tells(self) -> bool:
        """Return whether there is a box or a point of the foreground."""
        return self.box is not None or bool(self.foreground)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return which of "box" and "point" there are."""
        return ("box",) * (self.box is not None) + ("point",) * bool(self.foreground or self.background)

    @property
    def points(self) -> tuple[Point, ...]:
        """Return all points, corners among them."""
        return (*self.corners, *self.foreground, *self.background)

    @property
    def corners(self) -> tuple[Point, ...]:
        """Return the first and the last corner of the box, if there is one."""
        return () if self.box is None else (self.box[:2], self.box[2:])

    @property
    def tokens(self) -> list[tuple[float, float, float]]:
        """Return (x, y, mark) as SAM's prompt encoder has them: points, then corners or else a point that is none."""
        tokens = [(*point, float(FOREGROUND)) for point in self.foreground]
        tokens += [(*point, float(BACKGROUND)) for point in self.background]
        if self.box is None:
            return [*tokens, (0.0, 0.0, float(NO_POINT))]
        marks = (FIRST_CORNER, LAST_CORNER)
        return tokens + [(*corner, float(mark)) for corner, mark in zip(self.corners, marks, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Prompt(Outline):
    """One class or region in one slice of a case.

    Attributes:
        slice: number along the slice axis.
        hole: of what the mask leaves out, for rings.
    """

    case: str
    slice: int
    label: str
    hole: Outline | None = field(default=None, metadata=SPARSE)

    @property
    def place(self) -> str:
        """Return class, slice and case in words."""
        return f"{self.label} in slice {self.slice} of {self.case}"

    @property
    def outlines(self) -> tuple[Outline, ...]:
        """Return the outline of the mask, and that of its hole if there is one."""
        return (self,) if self.hole is None else (self, self.hole)


@dataclass(frozen=True)
class _PromptsFile:
    version: int
    prompts: tuple[Prompt, ...]


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> None:
    """Write prompts whose coordinates are voxels of the raw images."""
    write_json(path, _PromptsFile(PROMPTS_VERSION, tuple(prompts)))


def read_prompts(path: Path, labels: Iterable[str]) -> dict[str, list[Prompt]]:
    """Return case -> prompts, with voxels of its raw image as coordinates.

    Args:
        labels: names of the classes or regions that there are.

    Raises:
        PlanError: the file is missing or damaged, or a prompt cannot be meant.
    """
    content: Any = read_json(path)
    found = content.get("version", PROMPTS_VERSION) if isinstance(content, Mapping) else PROMPTS_VERSION
    if found != PROMPTS_VERSION:
        raise PlanError(f"{path}: prompts of version {found}, expected {PROMPTS_VERSION}. Write them anew.")
    file: _PromptsFile = from_json(_PromptsFile, content, str(path))
    known, cases = tuple(labels), dict[str, list[Prompt]]()
    for index, prompt in enumerate(file.prompts):
        _check(prompt, known, f"{path}: prompts: [{index}]")
        others = cases.setdefault(prompt.case, [])
        if any((other.slice, other.label) == (prompt.slice, prompt.label) for other in others):
            raise PlanError(f"{path}: prompts: [{index}]: {prompt.place} has a prompt already. Make one of both.")
        others.append(prompt)
    return cases


def _check(prompt: Prompt, labels: Sequence[str], where: str) -> None:
    if prompt.label not in labels:
        raise PlanError(f"{where}: no class {prompt.label!r}; {suggest(prompt.label, labels)}")
    for outline in prompt.outlines:
        if not outline.tells:
            raise PlanError(f"{where}: {prompt.place} has neither a box nor a foreground point. Add one.")
        if (box := outline.box) is not None and (box[0] > box[2] or box[1] > box[3]):
            sides = ", ".join(f"{side:g}" for side in box)
            raise PlanError(f"{where}: box [{sides}]: give first column and row, then last column and row.")
