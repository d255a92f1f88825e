"""Images and label maps from files and back; the only place where the order of axes is turned round."""

from autosam_net.imageio import natural, simpleitk  # they enter their readers into READERS
from autosam_net.imageio.reader import (
    READERS,
    Reader,
    read_case,
    read_image,
    read_label,
    split_ending,
    write_fractions,
    write_label,
)

__all__ = [
    "READERS",
    "Reader",
    "natural",
    "read_case",
    "read_image",
    "read_label",
    "simpleitk",
    "split_ending",
    "write_fractions",
    "write_label",
]
