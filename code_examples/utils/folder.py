"""Reading a folder of the reader's own pictures."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SIZES = (4, 512)  # pixels
MIN_PICTURES = 40  # a fifth of them are the test set, and metrics need 8
MAX_GIGABYTES = 8


def parse_folder(name: str) -> tuple[Path, int]:
    """Split "folder:PATH" or "folder:PATH@SIZE" into the path and the size in pixels.

    Only digits after the last @ are a size, which is 32 without them.

    Raises:
        UserError: if the path is empty or the size is not from 4 to 512.
    """
    rest = name.removeprefix("folder:")
    match = re.fullmatch(r"(.*)@([0-9]+)", rest, flags=re.DOTALL)
    path, size = (match[1], int(match[2][:9])) if match else (rest, 32)
    if not path:
        raise UserError(f"expected folder:PATH, got {name!r}: name a folder of pictures")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(
            f"expected a size from {SIZES[0]} to {SIZES[1]} pixels after the @, got {size}: "
            f"write folder:{path}@32 (or {name}@32 if the folder's own name ends so)"
        )
    return Path(os.path.expanduser(path)), size


def read_folder(name: str) -> tuple[Tensor, np.ndarray, tuple[str, ...]]:
    """Read all pictures below a folder, cropped at the centre to a square and resized.

    Hidden files and folders are left out: they hold thumbnails and copies of the visible ones.

    Args:
        name: "folder:PATH" or "folder:PATH@SIZE".

    Returns:
        Pictures (N, C, SIZE, SIZE) uint8, with one channel if all of them are grey; labels (N,)
        int64; class names, which are the folders directly below PATH ("all" if there are none,
        "other" for pictures beside them).

    Raises:
        UserError: if there is no such folder, fewer than 40 readable pictures, or far too many.
    """
    root, size = parse_folder(name)
    paths = _picture_paths(root)
    gigabytes = len(paths) * 3 * size**2 * 4 / 1e9
    if gigabytes > MAX_GIGABYTES:
        raise UserError(
            f"expected at most {MAX_GIGABYTES} GB of pictures, got {gigabytes:.0f} GB "
            f"({len(paths)} of {size} x {size}): use a smaller size, such as folder:{root}@32"
        )
    images, read = _read_all(paths, size)
    if len(read) < MIN_PICTURES:
        raise UserError(
            f"expected at least {MIN_PICTURES} readable pictures in {root}, got {len(read)} of "
            f"{len(paths)}: name a folder with more ({', '.join(SUFFIXES)})"
        )
    if (images == images[:, :1]).all():  # red = green = blue everywhere: grey, however stored
        images = images[:, :1].clone()
    labels, class_names = _labels([path.relative_to(root) for path in read])
    return images, labels, class_names


def _picture_paths(root: Path) -> list[Path]:
    """List the pictures below a folder, sorted by their path from there."""
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing there"
        raise UserError(f"expected a folder of pictures at {root}, got {found}: check the path")
    below = [(path.relative_to(root).parts, path) for path in root.rglob("*")]
    return [
        path
        for parts, path in sorted(below)
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in parts)
        and path.is_file()
    ]


def _read_all(paths: list[Path], size: int) -> tuple[Tensor, list[Path]]:
    """Read what can be read, (N, 3, size, size) uint8 and its paths; name the rest on stderr."""
    images, read, unreadable = torch.empty(len(paths), 3, size, size, dtype=torch.uint8), [], []
    for path in paths:
        try:
            images[len(read)] = _picture(path, size)
        except Exception as error:  # noqa: BLE001  decoders fail on garbage in any way
            unreadable.append(f"skipped {path}: unreadable picture ({type(error).__name__})")
        else:
            read.append(path)
    for line in unreadable[:5]:
        print(line, file=sys.stderr)
    if len(unreadable) > 5:
        print(f"skipped {len(unreadable) - 5} more unreadable pictures", file=sys.stderr)
    return images[: len(read)], read


def _picture(path: Path, size: int) -> Tensor:
    """Read one picture the right way up, on white, square, (3, size, size) uint8."""
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        file.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction, faster
        picture = ImageOps.exif_transpose(file)
    square = ImageOps.fit(_to_rgb(picture), (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _to_rgb(picture):  # PIL.Image.Image -> PIL.Image.Image
    """Convert any mode to RGB: 16-bit grey scaled to 8 bits, transparent parts on white."""
    from PIL import Image

    if picture.mode.startswith("I"):  # PIL itself would clip 16-bit values at 255
        grey = np.asarray(picture).astype(np.int64).clip(0, 65535)
        return Image.fromarray(np.round(grey / 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("a picture of floats, whose white is unknown")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _labels(paths: list[Path]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Label each relative path by the first folder on it, (N,) int64, and name the classes."""
    has_folders = any(len(path.parts) > 1 for path in paths)
    direct = "other" if has_folders else "all"
    names = [path.parts[0] if len(path.parts) > 1 else direct for path in paths]
    class_names = tuple(sorted(set(names)))
    return np.array([class_names.index(name) for name in names], dtype=np.int64), class_names
