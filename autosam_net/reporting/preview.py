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

TILE = 280  # pixels of the longer side of a slice
FINER = 2  # times finer than shown is drawn, so that lines are smooth
FILL = 0.35  # how much of a filled pixel is the colour of its class
LINE = 30  # pixels of a line of text
MARGIN = 12
PAPER, INK = "#16191d", "#e8eaed"

Masks = Mapping[str, NDArray[np.bool_]]
"""Class -> where it is, `(Z, Y, X)` or one slice `(Y, X)`."""


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
    labels = _labels_of(case, image)
    maps = [] if labels is None else [overlay.slices_first(labels, axis)]
    masks = _masks(maps[0], options.labels) if maps else {}
    planes = overlay.slices_first(image.array, axis)
    shown = overlay.slices_to_show(maps, planes.shape[1], options.slices)
    picture = _sheet(case.name, planes, masks, shown, image.geometry, axis, options.channel)
    with atomic_file(target) as temporary:
        picture.save(temporary, format="PNG")


def _labels_of(case: CaseFiles, image: Volume) -> NDArray[np.integer] | None:
    if case.label is None or not case.label.is_file():
        return None
    labels = read_label(case.label)
    if labels.shape != image.shape:
        log.warning("%s: the label has shape %s, the image %s; left out", case.name, labels.shape, image.shape)
        return None
    return labels.array[0]


def _masks(labels: NDArray[np.integer], names: LabelSet | None) -> dict[str, NDArray[np.bool_]]:
    """Return name -> mask of every class that is declared, and of every value that is there without a name."""
    targets = {} if names is None else dict(names.targets)
    if names is not None and names.ignore is not None:
        targets["ignore"] = (names.ignore,)
    known = {value for values in targets.values() for value in values} | {0}
    for value in np.unique(labels).tolist():
        if value not in known:
            targets[f"{value}" if names is None else f"{value} (not in dataset.json)"] = (value,)
    return {name: np.isin(labels, values) for name, values in targets.items()}


def _sheet(
    name: str,
    planes: NDArray[np.generic],
    masks: Masks,
    shown: Sequence[int],
    geometry: Geometry,
    axis: int,
    channel: int,
) -> Image.Image:
    """Return the whole picture: a title, the slices, the slices with labels, and what the colours mean."""
    from PIL import Image, ImageDraw

    rows, columns = overlay.plane_spacing(geometry.spacing, axis)
    height, width = planes.shape[2] * rows, planes.shape[3] * columns
    longer = max(height, width)
    tile = (max(1, round(TILE * width / longer)), max(1, round(TILE * height / longer)))
    pictures = _eight_bit(planes, shown, channel)
    colours = dict(zip(masks, overlay.colours(len(masks)), strict=True))
    legend = _legend(masks, colours, max(len(shown) * (tile[0] + MARGIN), 2 * TILE))
    levels = 1 + bool(masks)
    top = MARGIN + 2 * LINE
    total = max(legend.width, len(shown) * (tile[0] + MARGIN)) + MARGIN
    sheet = Image.new("RGB", (total, top + levels * (tile[1] + MARGIN) + legend.height), PAPER)
    draw, font = ImageDraw.Draw(sheet), _font(15)
    unit = " mm" if geometry.calibrated else ", no spacing in the file"
    steps = " x ".join(f"{step:g}" for step in geometry.spacing)
    draw.text((MARGIN, MARGIN), f"{name}   {steps}{unit} (Z, Y, X)", INK, _font(17))
    for column, index in enumerate(shown):
        left = MARGIN + column * (tile[0] + MARGIN)
        draw.text((left, top - LINE), f"{'ZYX'[axis]} {index + 1} of {planes.shape[1]}", INK, font)
        sheet.paste(_tile(pictures[column], {}, {}, tile), (left, top))
        if masks:
            here = {name: mask[index] for name, mask in masks.items()}
            sheet.paste(_tile(pictures[column], here, colours, tile), (left, top + tile[1] + MARGIN))
    sheet.paste(legend, (MARGIN, sheet.height - legend.height))
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


def _legend(masks: Masks, colours: Mapping[str, str], width: int) -> Image.Image:
    """Return the names beside their colours, with the number of slices of each class, in as many lines as needed."""
    from PIL import Image, ImageDraw

    font = _font(15)
    entries = [(f"{name}: {_count(mask)}", colours[name]) for name, mask in masks.items()]
    places, left, line = [], 0, 0
    for text, _ in entries:
        needed = int(font.getlength(text)) + 2 * LINE
        if left and left + needed > width:
            left, line = 0, line + 1
        places.append((left, line * LINE))
        left += needed
    legend = Image.new("RGB", (width, (line + 1) * LINE + MARGIN if entries else 1), PAPER)
    draw = ImageDraw.Draw(legend)
    for (x, y), (text, colour) in zip(places, entries, strict=True):
        draw.rectangle((x, y + 3, x + 16, y + 19), fill=colour)
        draw.text((x + 24, y), text, INK, font)
    return legend


def _count(mask: NDArray[np.bool_]) -> str:
    filled = int(mask.any(axis=(1, 2)).sum())
    if not filled:
        return "nowhere"
    return f"{int(mask.sum())} pixels" if len(mask) == 1 else f"{filled} of {len(mask)} slices"


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which knows Greek and Cyrillic too; matplotlib brings it."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
