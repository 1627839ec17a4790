"""Pictures of images: grids, rows, strips and animations; and what charts need of the same.

Images are magnified by whole numbers, without interpolation, to about 900 pixels across. Their
texts are drawn as they stand: write β or z₁, for formulas between dollar signs are for charts.
"""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from torch import Tensor

from .errors import UserError
from .files import write_atomically

WIDTH, HEIGHT, LARGEST, PAD, GAP = 900, 1350, 280, 12, 4  # pixels; LARGEST is one image's width
SMALL, NORMAL, LARGE = 16, 19, 22  # pixels, heights of texts
GREY = "#555555"

# --- For charts, too ----------------------------------------------------------------


def to_array(values) -> np.ndarray:
    """Float64 NumPy array of a tensor, an array or a sequence of either or of numbers."""
    if isinstance(values, list | tuple):
        values = [to_array(v) for v in values]
    if isinstance(values, Tensor):
        values = values.detach().cpu().double()
    return np.asarray(values, dtype=np.float64)


def check_count(values: Sequence, count: int, what: str) -> None:
    """Raise UserError unless there are `count` values."""
    if len(values) != count:
        raise UserError(f"expected {count} {what}, got {len(values)}: give one for each")


def write_picture(path: str | Path, suffix: str, save: Callable[[BinaryIO], None]) -> Path:
    """Write what `save` puts into a buffer, whole or not at all, and return the path.

    Raises:
        UserError: The path does not end in `suffix`, or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise UserError(f"expected a picture named *{suffix}, got {path.name}: rename it")
    buffer = io.BytesIO()
    save(buffer)
    write_atomically(path, buffer.getvalue())
    return path


# --- Images on a page ---------------------------------------------------------------


def _pixels(x) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1] as bytes (N, H, W, 3)."""
    array = to_array(x)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or array.size == 0:
        raise UserError(
            f"expected images (N, C, H, W) with C = 1 or 3, got shape {array.shape}: reshape them"
        )
    low, high = array.min(), array.max()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # written so that NaN is refused, too
        raise UserError(
            f"expected pixels in [0, 1], got [{low:.4g}, {high:.4g}]: "
            "rescale them, for example x / 255 or (x + 1) / 2, or clamp(0, 1)"
        )
    pixels = np.rint(array.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))


def _columns(count: int) -> int:
    """Columns of a grid near to a square, without a gap in the last row where that is possible."""
    root = math.ceil(math.sqrt(count))
    exact = (c for c in range(root, 2 * root) if count % c == 0)
    return count if count <= 8 else next(exact, root)


def _mosaic(pixels: np.ndarray, columns: int, *, scale: int, pitch: tuple[int, int]) -> np.ndarray:
    """One white page (H, W, 3) with magnified images `pitch` = (down, across) pixels apart."""
    pixels = pixels.repeat(scale, 1).repeat(scale, 2)
    count, height, width, _ = pixels.shape
    down, across = -(-count // columns) - 1, columns - 1
    page = np.full((down * pitch[0] + height, across * pitch[1] + width, 3), 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = i // columns * pitch[0], i % columns * pitch[1]
        page[top : top + height, left : left + width] = image
    return page


def _font(size: int):
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _longest(texts: Sequence[str], size: int) -> int:
    """Pixels across the longest of some texts of one line each, 0 without any."""
    return math.ceil(max((_font(size).getlength(text) for text in texts), default=0))


def _page(picture: np.ndarray, texts: Sequence[tuple], *, title: str, caption: str):
    """A PIL image of a picture (H, W, 3) with texts around it, as large as they need.

    Each text is (place from the picture's corner, text, height, PIL's anchor, colour).
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(picture)
    draw = ImageDraw.Draw(picture)

    def edges():  # left, top, right and bottom of the picture with all texts
        boxes = [draw.textbbox(at, t, _font(size), anchor) for at, t, size, anchor, _ in texts]
        boxes = np.array([(0, 0, *picture.size), *boxes])
        return *np.floor(boxes[:, :2].min(0)).astype(int), *np.ceil(boxes[:, 2:].max(0)).astype(int)

    left, top, right, bottom = edges()
    room = max(right - left, 456) / 0.53  # a single small image still needs lines of some length
    if title:
        lines = textwrap.fill(title, int(room / LARGE))
        texts = [*texts, ((left, top - 12), lines, LARGE, "ld", "black")]
    if caption:
        lines = textwrap.fill(caption, int(room / SMALL))
        texts = [*texts, ((left, bottom + 12), lines, SMALL, "la", GREY)]
    left, top, right, bottom = edges()
    page = Image.new("RGB", (right - left + 2 * PAD, bottom - top + 2 * PAD), "white")
    page.paste(picture, (PAD - left, PAD - top))
    draw = ImageDraw.Draw(page)
    for (x, y), text, size, anchor, color in texts:
        draw.text((PAD - left + x, PAD - top + y), text, color, _font(size), anchor)
    return page


def _gallery(
    pixels: np.ndarray,
    path: str | Path,
    *,
    columns: int,
    under: Sequence[str] = (),
    left: Sequence[str] = (),
    right: Sequence[str] = (),
    xlabel: str = "",
    title: str = "",
    caption: str = "",
) -> Path:
    """Draw images row by row with texts under each and at both ends of each row."""
    count, height, width, _ = pixels.shape
    rows = -(-count // columns)
    room = max(WIDTH - _longest(left, NORMAL) - _longest(right, NORMAL), WIDTH / 2)
    scale = min(round(room / (columns * width)), HEIGHT // (rows * height), LARGEST // width)
    scale = max(1, scale)
    height, width = height * scale, width * scale
    line = SMALL + 12 if any(under[:-columns]) else GAP
    down, across = height + line, max(width + GAP, _longest(under, SMALL) + 10)

    picture = _mosaic(pixels, columns, scale=scale, pitch=(down, across))
    bottom, end = picture.shape[:2]
    texts = []
    for i, text in enumerate(under):
        place = i % columns * across + width / 2, i // columns * down + height + 2
        texts.append((place, text, SMALL, "ma", "black"))
    for i, text in enumerate(left):
        texts.append(((-10, i * down + height / 2), text, NORMAL, "rm", "black"))
    for i, text in enumerate(right):
        texts.append(((end + 10, i * down + height / 2), text, NORMAL, "lm", GREY))
    if xlabel:
        below = bottom + (SMALL + 12 if under else 6)
        texts.append(((end / 2, below), xlabel, NORMAL, "ma", "black"))
    page = _page(picture, texts, title=title, caption=caption)
    return write_picture(path, ".png", lambda file: page.save(file, "PNG"))


def cloud(points: Tensor, bounds: tuple[float, float, float, float], side: int = 112) -> Tensor:
    """Points (N, 2) as one grey picture (1, 1, side, side) in [0, 1], for a frame of a film.

    Args:
        bounds: (x_low, x_high, y_low, y_high); points outside are left out.
    """
    window = (bounds[:2], bounds[2:])
    counts, _, _ = np.histogram2d(*to_array(points).T, bins=side, range=window)
    return Tensor(counts.T[::-1].clip(max=3) / 3)[None, None]  # white: 3 points in a cell


def image_grid(
    x,
    path: str | Path,
    *,
    columns: int | None = None,
    labels: Sequence | None = None,
    title: str = "",
    caption: str = "",
) -> Path:
    """Draw images (N, C, H, W) in [0, 1], grey or RGB, row by row in a grid.

    Args:
        columns: Images in a row; chosen near to a square when not given.
        labels: A short text or number under each image, N of them.
        caption: Small grey text below the grid.

    Raises:
        UserError: The shape or the range is not that of images, or the labels are not N.
    """
    pixels = _pixels(x)
    under = labels.tolist() if isinstance(labels, Tensor) else labels
    under = [] if under is None else [str(label) for label in under]
    check_count(under or pixels, len(pixels), "labels")
    columns = min(columns or _columns(len(pixels)), len(pixels))
    return _gallery(pixels, path, columns=columns, under=under, title=title, caption=caption)


def _stack(rows: Mapping[str, Tensor]) -> tuple[np.ndarray, int]:
    """All rows' images as one array, and the number of images in a row."""
    pixels = [_pixels(x) for x in rows.values()]
    shapes = {p.shape[:3] for p in pixels}
    if len(shapes) != 1:
        raise UserError(
            f"expected rows with equally many images of one size, got {sorted(shapes)} "
            "(images, height, width): cut them to the same"
        )
    return np.concatenate(pixels), len(pixels[0])


def image_rows(
    rows: Mapping[str, Tensor],
    path: str | Path,
    *,
    title: str = "",
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Draw named rows of images, each (N, C, H, W) in [0, 1], one under the other.

    Args:
        rows: The name at the left of each row, such as "input", to its images.
        notes: A short text at the right of the rows named, such as "PSNR 14.2 dB".

    Raises:
        UserError: The rows differ in number or size of images, or are no images in [0, 1].
    """
    pixels, columns = _stack(rows)
    right = [notes.get(name, "") for name in rows] if notes else []
    return _gallery(pixels, path, columns=columns, left=list(rows), right=right, title=title)


def strips(
    rows: Mapping[str, Tensor],
    path: str | Path,
    *,
    title: str = "",
    xlabel: str = "",
    ticks: Sequence | None = None,
) -> Path:
    """Draw interpolations or traversals: named rows (T, C, H, W) over one numbered axis.

    Args:
        ticks: The number or text below each of the T columns.
        xlabel: What those numbers are.

    Raises:
        UserError: As `image_rows`, or the ticks are not T.
    """
    pixels, columns = _stack(rows)
    place = {"columns": columns, "left": list(rows)}
    if ticks is not None:
        check_count(ticks, columns, "ticks")
        texts = [t if isinstance(t, str) else f"{float(t):.4g}" for t in ticks]
        place["under"] = [""] * (len(pixels) - columns) + texts
    return _gallery(pixels, path, **place, xlabel=xlabel, title=title)


# --- Animation ----------------------------------------------------------------------


def _frame(images, label: str, *, below: int, widest: int):
    """An image (C, H, W) or a grid of a batch, its text centred in the `below` pixels below."""
    from PIL import Image, ImageDraw

    array = to_array(images)
    pixels = _pixels(array[None] if array.ndim == 3 else array)
    columns = _columns(len(pixels))
    rows, (height, width) = -(-len(pixels) // columns), pixels.shape[1:3]
    scale = math.ceil(256 / max(rows * height, columns * width))
    pitch = scale * height + 2, scale * width + 2
    picture = Image.fromarray(_mosaic(pixels, columns, scale=scale, pitch=pitch))
    page = Image.new("RGB", (max(picture.width, widest), picture.height + below), "white")
    page.paste(picture, ((page.width - picture.width) // 2, 0))
    place = page.width / 2, picture.height + below / 2
    ImageDraw.Draw(page).text(place, label, "black", _font(SMALL + 1), "mm")
    return page


def animation(
    frames: Tensor | Sequence[Tensor],
    path: str | Path,
    *,
    fps: float = 8,
    labels: Sequence[str] | None = None,
    hold_last_seconds: float = 1.5,
) -> Path:
    """Write an endless GIF of images (C, H, W) or of batches (N, C, H, W) shown as grids.

    Args:
        frames: T of them in [0, 1], all of one shape.
        fps: Frames a second, at most 50 (what browsers play).
        labels: A text below each frame, such as "step 1,200".
        hold_last_seconds: How long the last frame stays before the animation starts again.

    Raises:
        UserError: No frames, frames of different shapes, labels that are not T, or a bad range.
    """
    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) != 1:
        raise UserError(f"expected frames of one shape, got {sorted(shapes)}: make them equal")
    texts = [""] * len(frames) if labels is None else [str(text) for text in labels]
    check_count(texts, len(frames), "labels")
    room = {"below": 28 if labels else 0, "widest": _longest(texts, SMALL + 1) + 8}
    first, *rest = (_frame(f, t, **room) for f, t in zip(frames, texts, strict=True))
    durations = [1000 / fps] * len(rest) + [max(1000 / fps, 1000 * hold_last_seconds)]
    how = {"save_all": True, "append_images": rest, "duration": durations, "loop": 0}
    return write_picture(path, ".gif", lambda file: first.save(file, "GIF", **how))
