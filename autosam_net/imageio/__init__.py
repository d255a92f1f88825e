"""Images and label maps from files and back; the only place where the order of axes is turned round."""

from autosam_net.imageio import (  # they enter their readers into READERS and FOLDER_READERS
    dicom,
    natural,
    simpleitk,
    tiff,
)
from autosam_net.imageio.reader import (
    FOLDER_READERS,
    READERS,
    FolderReader,
    Reader,
    count_numbers,
    image_stem,
    is_image_folder,
    read_case,
    read_image,
    read_label,
    split_ending,
    write_fractions,
    write_label,
)

__all__ = [
    "FOLDER_READERS",
    "READERS",
    "FolderReader",
    "Reader",
    "count_numbers",
    "dicom",
    "image_stem",
    "is_image_folder",
    "natural",
    "read_case",
    "read_image",
    "read_label",
    "simpleitk",
    "split_ending",
    "tiff",
    "write_fractions",
    "write_label",
]
