"""Raw cases as pictures: some slices plain, and below them the same with the labels filled and outlined."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.dataset import CaseFiles
from autosam_net.data.labels import LabelSet
from autosam_net.data.volume import Geometry, Volume
from autosam_net.files import atomic_file
from autosam_net.imageio import read_case, read_label
from autosam_net.reporting import overlay

if TYPE_CHECKING:
    from PIL import Image, ImageFont

log = logging.getLogger(__name__)

TILE = 280  # pixels of the longer side of a slice; of a 2D image twice as many
FINER = 2  # times finer than shown is drawn, so that lines are smooth
FILL = 0.35  # how much of a filled pixel is the colour of its class
LINE = 30  # pixels of a line of text
MARGIN = 12
PAPER, INK = "#16191d", "#e8eaed"

Masks = Mapping[str, NDArray[np.bool_]]
"""Class -> where it is in one slice, `(Y, X)`."""


@dataclass(frozen=True)
class PreviewOptions:
    """What is shown of every case.

    Attributes:
        slices: number of slices at most.
        channel: of an image that has several and is no colour image.
        axis: across which slices are taken; if None, what fits the case.
        labels: names of the label values; if None, the values name themselves.
    """

    slices: int = 5
    channel: int = 0
    axis: int | None = None
    labels: LabelSet | None = None


def write_preview(case: CaseFiles, target: Path, options: PreviewOptions) -> None:
    """Write a picture (PNG) of a case; memory holds one case.

    A label map on another grid than its image is left out with a warning, since looking at raw data is how such faults
    are found.

    Raises:
        DatasetError: the channels of the case lie on different grids.
        ImageFileError: a file cannot be read.
    """
    image = read_case(case.images)
    axis = options.axis
    if axis is None:
        axis = overlay.thickest_axis(image.shape, image.geometry.spacing)
    labels = _labels_of(case, image, axis, options.labels)
    planes = overlay.slices_first(image.array, axis)
    maps = [] if labels is None else [labels.planes]
    shown = overlay.slices_to_show(maps, planes.shape[1], options.slices)
    title = f"{case.name}   {_spacing_in_words(image.geometry)}"
    tile = _tile_size(planes, overlay.plane_spacing(image.geometry.spacing, axis))
    captions = [f"{'ZYX'[axis]} {index + 1} of {planes.shape[1]}" for index in shown] if planes.shape[1] > 1 else [""]
    slices = dict(zip(shown, _eight_bit(planes, shown, options.channel), strict=True))
    rows = [[_tile(plain, {}, {}, tile) for plain in slices.values()]]
    if labels is not None:
        rows.append([_tile(plain, labels.masks(index), labels.colours, tile) for index, plain in slices.items()])
    picture = _sheet(title, captions, rows, {} if labels is None else labels.legend)
    with atomic_file(target) as temporary:
        picture.save(temporary, format="PNG")


@dataclass(frozen=True)
class _Labels:
    """The label map of a case, slices first; masks are made slice by slice, since classes may be many.

    Attributes:
        planes: `(Z, Y, X)`.
        targets: class -> its values.
        counts: for each slice, value -> number of pixels.
    """

    planes: NDArray[np.integer]
    targets: Mapping[str, tuple[int, ...]]
    counts: tuple[Mapping[int, int], ...]

    @property
    def colours(self) -> dict[str, str]:
        return dict(zip(self.targets, overlay.colours(len(self.targets)), strict=True))

    @property
    def legend(self) -> dict[str, str]:
        """Return what is to be said of each class -> its colour."""
        return {f"{name}: {self._extent(name)}": colour for name, colour in self.colours.items()}

    def masks(self, index: int) -> dict[str, NDArray[np.bool_]]:
        """Return the classes in a slice."""
        here = self.counts[index].keys()
        return {
            name: np.isin(self.planes[index], values) for name, values in self.targets.items() if here & set(values)
        }

    def _extent(self, name: str) -> str:
        pixels = [sum(counts.get(value, 0) for value in self.targets[name]) for counts in self.counts]
        slices = sum(number > 0 for number in pixels)
        if not slices:
            return "nowhere"
        return f"{pixels[0]} pixels" if len(pixels) == 1 else f"{slices} of {len(pixels)} slices"


def _labels_of(case: CaseFiles, image: Volume, axis: int, names: LabelSet | None) -> _Labels | None:
    if case.label is None or not case.label.is_file():
        return None
    found = read_label(case.label)
    if found.shape != image.shape:
        log.warning("%s: the label has shape %s, the image %s; left out", case.name, found.shape, image.shape)
        return None
    planes: NDArray[np.integer] = overlay.slices_first(found.array[0], axis)
    counts = tuple(
        dict(zip(*(part.tolist() for part in np.unique(plane, return_counts=True)), strict=True)) for plane in planes
    )
    return _Labels(planes, _targets(sorted({value for count in counts for value in count}), names), counts)


def _targets(values: Sequence[int], names: LabelSet | None) -> dict[str, tuple[int, ...]]:
    """Return the classes that are declared, and one for each value that is there without a name."""
    if names is None:
        return {str(value): (value,) for value in values if value != 0}
    targets = {**names.targets, **({} if names.ignore is None else {"ignore": (names.ignore,)})}
    unknown = [value for value in values if value not in names.allowed_values]
    return {**targets, **{f"{value} (not in dataset.json)": (value,) for value in unknown}}


def _spacing_in_words(geometry: Geometry) -> str:
    if not geometry.calibrated:
        return "no spacing in the file"
    return " x ".join(f"{step:g}" for step in geometry.spacing) + " mm (Z, Y, X)"


def _tile_size(planes: NDArray[np.generic], spacing: tuple[float, float]) -> tuple[int, int]:
    """Return width and height of a slice in the picture, as it is in the patient."""
    height, width = planes.shape[2] * spacing[0], planes.shape[3] * spacing[1]
    scale = (TILE if planes.shape[1] > 1 else 2 * TILE) / max(height, width)
    return max(1, round(scale * width)), max(1, round(scale * height))


def _sheet(
    title: str, captions: Sequence[str], rows: Sequence[Sequence[Image.Image]], legend: Mapping[str, str]
) -> Image.Image:
    """Return the whole picture: a title, rows of slices below their captions, and what the colours mean."""
    from PIL import Image, ImageDraw

    width, height = rows[0][0].width + MARGIN, rows[0][0].height + MARGIN
    meaning = _legend(legend, max(len(captions) * width, 2 * TILE))
    top = MARGIN + 2 * LINE
    size = (max(meaning.width, len(captions) * width) + MARGIN, top + len(rows) * height + meaning.height)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), _font(15)
    draw.text((MARGIN, MARGIN), title, INK, _font(17))
    for column, caption in enumerate(captions):
        draw.text((MARGIN + column * width, top - LINE), caption, INK, font)
        for row, tiles in enumerate(rows):
            sheet.paste(tiles[column], (MARGIN + column * width, top + row * height))
    sheet.paste(meaning, (MARGIN, sheet.height - meaning.height))
    return sheet


def _eight_bit(planes: NDArray[np.generic], shown: Sequence[int], channel: int) -> list[NDArray[np.uint8]]:
    """Return the slices as `(Y, X, 3)`."""
    if overlay.is_colour(planes):
        return [np.moveaxis(planes[:, index], 0, -1).astype(np.uint8) for index in shown]
    grey = planes[min(channel, len(planes) - 1)]
    window = overlay.intensity_window(grey)
    return [np.repeat(overlay.to_eight_bit(grey[index], window)[..., None], 3, axis=-1) for index in shown]


def _tile(picture: NDArray[np.uint8], masks: Masks, colours: Mapping[str, str], size: tuple[int, int]) -> Image.Image:
    """Return one slice of `size` (width, height) with its classes filled and outlined."""
    from PIL import Image, ImageColor, ImageDraw

    fine = (FINER * size[0], FINER * size[1])
    tile = Image.fromarray(picture).resize(fine, Image.Resampling.BILINEAR)
    scale = np.array(fine) / (picture.shape[1], picture.shape[0])
    for name, mask in masks.items():
        alpha = Image.fromarray((255 * FILL * mask).astype(np.uint8)).resize(fine, Image.Resampling.NEAREST)
        tile.paste(ImageColor.getrgb(colours[name]), (0, 0), alpha)
    draw = ImageDraw.Draw(tile)
    for name, mask in masks.items():
        for curve in overlay.outline(mask):
            draw.line([tuple(point) for point in curve * scale], colours[name], width=FINER + 1)
    return tile.resize(size, Image.Resampling.LANCZOS)


def _legend(entries: Mapping[str, str], width: int) -> Image.Image:
    """Return texts beside their colours, in as many lines as needed."""
    from PIL import Image, ImageDraw

    font = _font(15)
    places, left, line = [], 0, 0
    for text in entries:
        needed = int(font.getlength(text)) + 2 * LINE
        if left and left + needed > width:
            left, line = 0, line + 1
        places.append((left, line * LINE))
        left += needed
    legend = Image.new("RGB", (width, (line + 1) * LINE + MARGIN if entries else 1), PAPER)
    draw = ImageDraw.Draw(legend)
    for (x, y), (text, colour) in zip(places, entries.items(), strict=True):
        draw.rectangle((x, y + 3, x + 16, y + 19), fill=colour)
        draw.text((x + 24, y), text, INK, font)
    return legend


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which knows Greek and Cyrillic too; matplotlib brings it."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
