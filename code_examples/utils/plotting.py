"""Figures: each function takes data, writes one picture atomically and returns its path.

Images are drawn pixel for pixel (whole-number magnification, no interpolation), about 900 pixels
wide. Nothing here touches pyplot or leaves matplotlib's settings changed: it works headless.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import UserError

OKABE_ITO = [
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
]  # lines and bars
MUTED = [
    "#332288",
    "#88CCEE",
    "#44AA99",
    "#117733",
    "#999933",
    "#DDCC77",
    "#CC6677",
    "#882255",
    "#AA4499",
    "#888888",
]
DASHES = [(0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2))]
GREY = "#555555"
DPI, WIDTH, PAD = 150, 900, 12  # pixels
SMALL, NORMAL, LARGE = 7.5, 9, 10.5  # points
STYLE = {
    "font.size": NORMAL,
    "axes.titlesize": LARGE,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.formatter.useoffset": False,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "image.cmap": "viridis",
}
Bounds = tuple[float, float, float, float]


@contextmanager
def _target(path: str | Path, kinds: Sequence[str] = ("png", "jpg", "pdf", "svg")) -> Iterator:
    """A file to draw into and its format; it takes the place of `path` only when complete."""
    path = Path(path)
    kind = path.suffix[1:].lower()
    if kind not in kinds:
        raise UserError(f"expected a picture named *.{kinds[0]}, got {path.name}: rename it")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part, kind
        os.replace(part, path)
    except OSError as error:
        problem = error.strerror or error
        raise UserError(
            f"expected to write {path}, got {problem}: choose another folder or make room"
        ) from error
    finally:
        if part.is_file():
            part.unlink()


@contextmanager
def _figure(path: str | Path, width: float, height: float, *, exact: bool = False) -> Iterator:
    """An empty figure, width x height inches, saved when the block ends; `exact`: not cropped."""
    import matplotlib
    from matplotlib.figure import Figure

    with _target(path) as (part, kind), matplotlib.rc_context():
        matplotlib.rcdefaults()  # a reader's own dark style would make half of this unreadable
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), dpi=DPI, layout=None if exact else "compressed")
        yield figure
        crop = {} if exact else {"bbox_inches": "tight", "pad_inches": 0.08}
        figure.savefig(part, format=kind, dpi=DPI, **crop)


def _array(values) -> np.ndarray:
    """Float64 NumPy copy of a tensor, an array or a sequence of either or of numbers."""
    if isinstance(values, list | tuple) and any(isinstance(v, Tensor) for v in values):
        values = torch.stack([torch.as_tensor(v).detach().cpu().double() for v in values])
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _points(values, name: str) -> np.ndarray:
    array = _array(values)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise UserError(f"expected {name} of shape (N, 2), got {array.shape}: pick two columns")
    return array


def _check_count(values: Sequence | None, count: int, what: str) -> None:
    if values is not None and len(values) != count:
        raise UserError(f"expected {count} {what}, got {len(values)}: give one for each")


def _pixels(x) -> np.ndarray:
    """Images (N, C, H, W) in [0, 1] as bytes (N, H, W, 3)."""
    array = _array(x)
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
    exact = [c for c in range(root, 2 * root) if count % c == 0]
    return count if count <= 8 else exact[0] if exact else root


def _mosaic(pixels: np.ndarray, columns: int, *, scale: int, pitch: tuple[int, int]) -> np.ndarray:
    """One white page (H, W, 3) with magnified images `pitch` = (down, across) pixels apart."""
    count, height, width, _ = pixels.shape
    height, width, rows = height * scale, width * scale, -(-count // columns)
    shape = (rows - 1) * pitch[0] + height, (columns - 1) * pitch[1] + width, 3
    page = np.full(shape, 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = i // columns * pitch[0], i % columns * pitch[1]
        page[top : top + height, left : left + width] = image.repeat(scale, 0).repeat(scale, 1)
    return page


def _extent(texts: str | Sequence[str], size: float) -> tuple[int, int]:
    """Width and height in pixels of the largest of some texts, (0, 0) without any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1), dpi=DPI)
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [texts] if isinstance(texts, str) else texts
    boxes = [figure.text(0, 0, t, size=size).get_window_extent(renderer) for t in texts if t]
    width, height = (
        max((b.width for b in boxes), default=0),
        max((b.height for b in boxes), default=0),
    )
    return math.ceil(width), math.ceil(height)


def _wrap(text: str, width: float, size: float) -> str:
    """The text with line breaks where a line would be wider than `width` pixels."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and _extent(longer, size)[0] > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)


def _magnify(pixels: np.ndarray, columns: int, room: float) -> tuple[int, int, int]:
    """Whole-number scale that fills `room` pixels across, then a cell's height and width."""
    count, height, width, _ = pixels.shape
    tall = -(-count // columns) * height
    scale = max(1, min(round(room / (columns * width)), 1350 // tall, 280 // width))
    return scale, scale * height, scale * width


def _around(corner, cell, pitch, columns, *, under, left, right, ticks) -> list[tuple]:
    """The texts beside the images, each (x, y from the top, text, how)."""
    (x, y), (height, width), (down, across) = corner, cell, pitch
    small, beside = {"size": SMALL, "ha": "center"}, {"size": NORMAL, "va": "center"}
    centres = [x + c * across + width / 2 for c in range(columns)]
    rows = max(-(-len(under) // columns), len(left))
    end, bottom = centres[-1] + width / 2, y + (rows - 1) * down + height
    texts = []
    for i, text in enumerate(under):
        texts.append((centres[i % columns], y + i // columns * down + height + 3, text, small))
    for i, text in enumerate(left):
        texts.append((x - 10, y + i * down + height / 2, text, {**beside, "ha": "right"}))
    for i, text in enumerate(right):
        texts.append((end + 10, y + i * down + height / 2, text, {**beside, "color": GREY}))
    return texts + [(c, bottom + 5, t, small) for c, t in zip(centres, ticks, strict=False)]


def _gallery(
    pixels: np.ndarray,
    path: str | Path,
    *,
    columns: int,
    under: Sequence[str] = (),
    left: Sequence[str] = (),
    right: Sequence[str] = (),
    ticks: Sequence[str] = (),
    xlabel: str = "",
    title: str | None = None,
    caption: str | None = None,
) -> Path:
    """Draw images row by row with texts under each, beside each row and below each column."""
    title, caption = title or "", caption or ""
    margin, note = (_extent(t, NORMAL)[0] + (10 if t else 0) for t in (left, right))
    scale, height, width = _magnify(pixels, columns, max(WIDTH - margin - note, WIDTH / 2))
    label, line = _extent([*under, *ticks], SMALL)
    pitch = height + (line + 10 if under else 4), max(width + 4, label + 10 if label else 0)
    picture = _mosaic(pixels, columns, scale=scale, pitch=pitch)

    spill = max(0, label - width) // 2  # labels wider than the images overhang the outer ones
    page = margin + picture.shape[1] + note + 2 * (PAD + spill)
    # A single small image still needs lines of some length above and below it.
    widest = max(_extent(title, LARGE)[0], _extent(caption, SMALL)[0])
    page = max(page, min(widest + 2 * PAD, 480))
    title, caption = _wrap(title, page - 2 * PAD, LARGE), _wrap(caption, page - 2 * PAD, SMALL)

    top = PAD + (_extent(title, LARGE)[1] + 12 if title else 0)
    corner = PAD + margin + spill, top
    place = {"under": under, "left": left, "right": right, "ticks": ticks}
    texts = _around(corner, (height, width), pitch, columns, **place)
    y = top + len(picture) + (line + 8 if under or ticks else 0)
    middle = corner[0] + picture.shape[1] / 2
    texts.append((PAD, PAD, title, {"size": LARGE}))
    texts.append((middle, y + 6, xlabel, {"size": NORMAL, "ha": "center"}))
    y += _extent(xlabel, NORMAL)[1] + 6 if xlabel else 0
    texts.append((PAD, y + 10, caption, {"size": SMALL, "color": GREY}))
    y += _extent(caption, SMALL)[1] + 10 if caption else 0
    return _page(picture, path, size=(page, y + PAD), corner=corner, texts=texts)


def _page(picture: np.ndarray, path: str | Path, *, size, corner, texts) -> Path:
    """Draw a picture at `corner` of a page of `size` pixels, without resampling, and texts."""
    width, height = size
    # Half a pixel more, so that rounding inches back to pixels cannot lose one.
    with _figure(path, (width + 0.5) / DPI, (height + 0.5) / DPI, exact=True) as figure:
        left, top = corner
        figure.figimage(picture, left, height - top - len(picture), origin="upper")
        for x, y, text, how in texts:
            figure.text(x / width, 1 - y / height, text, **{"va": "top", **how})
    return Path(path)


def image_grid(
    x,
    path: str | Path,
    *,
    columns: int | None = None,
    labels: Sequence | None = None,
    title: str | None = None,
    caption: str | None = None,
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
    labels = [] if labels is None else [str(getattr(t, "item", lambda t=t: t)()) for t in labels]
    _check_count(labels or None, len(pixels), "labels")
    columns = min(columns or _columns(len(pixels)), len(pixels))
    return _gallery(pixels, path, columns=columns, under=labels, title=title, caption=caption)


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
    title: str | None = None,
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
    right = [(notes or {}).get(name, "") for name in rows] if notes else []
    return _gallery(pixels, path, columns=columns, left=list(rows), right=right, title=title)


def strips(
    rows: Mapping[str, Tensor],
    path: str | Path,
    *,
    title: str | None = None,
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
    ticks = [] if ticks is None else [t if isinstance(t, str) else f"{float(t):.4g}" for t in ticks]
    _check_count(ticks or None, columns, "ticks")
    return _gallery(
        pixels, path, columns=columns, left=list(rows), ticks=ticks, xlabel=xlabel, title=title
    )


def _running_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Mean of the finite values in a centred window; narrow at the start, where curves fall."""
    finite = np.isfinite(y)
    total = np.concatenate([[0], np.cumsum(np.where(finite, y, 0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    i = np.arange(len(y))
    half = np.minimum(width // 2, i)
    low, high = i - half, np.minimum(i + half + 1, len(y))
    number = count[high] - count[low]
    return np.where(number > 0, (total[high] - total[low]) / np.maximum(number, 1), np.nan)


def _is_noisy(y: np.ndarray) -> bool:
    """Whether a long series turns at nearly every point (white noise: at two of three)."""
    steps = np.diff(y[np.isfinite(y)])
    return len(steps) > 100 and bool(np.mean(steps[1:] * steps[:-1] < 0) > 0.3)


def _label_lines(axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each (y, name, colour) at the right edge of the axes, moved apart where they meet."""
    if not ends:
        return
    figure = axes.figure
    texts = [
        axes.text(1.015, 0.5, name, color=color, va="center", transform=axes.transAxes)
        for _, name, color in ends
    ]
    figure.draw_without_rendering()  # lays the axes out, so that heights in pixels are known
    to_axes = axes.transData + axes.transAxes.inverted()
    y = np.array([to_axes.transform((axes.get_xlim()[0], value))[1] for value, _, _ in ends])
    order = np.argsort(y, kind="stable")
    y = y[order].clip(0, 1)
    step = min(1.15 * NORMAL * DPI / 72 / axes.bbox.height, 1 / len(y))
    for _ in range(200):
        overlap = np.maximum(step - np.diff(y), 0) / 2
        y[:-1] -= overlap
        y[1:] += overlap
        y = y.clip(0, 1)
    for k, height in zip(order, y, strict=True):
        texts[k].set_y(height)


def _log_ticks(axis) -> None:
    """Plain numbers at 1, 2, 5 of each decade while few decades are shown."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    if high / low < 1e3:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: str | Path,
    *,
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    logy: bool = False,
    logx: bool = False,
    hlines: Mapping[str, float] | None = None,
    band: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    markers: bool = False,
) -> Path:
    """Draw named curves, each labelled at its end; a long noisy one as its running mean.

    Args:
        series: Name to (x, y). What is not finite is left out.
        xlabel, ylabel: Quantity with unit.
        hlines: Name to height of dashed reference lines, such as {"PCA 0.0168": 0.0168}.
        band: For some of the series, lowest and highest y at each x, such as over seeds.
        markers: Mark the points themselves, for few measured points.

    Raises:
        UserError: An x and a y differ in length.
    """
    with _figure(path, 6.0, 3.6) as figure:
        axes, ends = figure.add_subplot(), []
        for k, (name, (x, y)) in enumerate(series.items()):
            x, y, color = _array(x), _array(y), OKABE_ITO[k % len(OKABE_ITO)]
            _check_count(x, len(y), f"x values for {name}")
            if _is_noisy(y):
                axes.plot(x, y, color=color, alpha=0.25, linewidth=0.7)
                y = _running_mean(y, max(5, len(y) // 25))
            style = "o-" if markers else "-"
            axes.plot(x, y, style, color=color, linewidth=1.8, markersize=4, zorder=3)
            if band and name in band:
                low, high = map(_array, band[name])
                axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
            ends += [(y[np.isfinite(y)][-1], name, color)] if np.isfinite(y).any() else []
        for k, (name, height) in enumerate((hlines or {}).items()):
            axes.axhline(height, color=GREY, linewidth=1.1, linestyle=DASHES[k % len(DASHES)])
            ends.append((height, name, GREY))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set_title(_wrap(title or "", 800, LARGE))
        axes.margins(x=0.02)
        axes.grid(True)
        for log, axis, name in ((logx, axes.xaxis, "x"), (logy, axes.yaxis, "y")):
            if log:
                axes.set(**{f"{name}scale": "log"})
                _log_ticks(axis)
        _label_lines(axes, ends)
    return Path(path)


def bars(
    values: Mapping[str, float] | Mapping[str, Mapping[str, float]],
    path: str | Path,
    *,
    ylabel: str,
    title: str | None = None,
    fmt: str = "{:.2f}",
    baseline: Mapping[str, float] | None = None,
) -> Path:
    """Draw bars with their numbers on them.

    Args:
        values: Name to height, or group to (name to height): a bar of each name in each group.
        ylabel: Quantity with unit.
        fmt: How the numbers are written.
        baseline: Name to height of dashed reference lines.
    """
    grouped = any(isinstance(v, Mapping) for v in values.values())
    table = values if grouped else {group: {"": value} for group, value in values.items()}
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    count, slot = len(table) * len(names), 0.8 / len(names)
    inches = min(max(2.0 + 0.55 * count + 0.25 * len(table), 3.2), 6.0 if count < 16 else 8.0)
    with _figure(path, inches, 3.4) as figure:
        axes = figure.add_subplot()
        for k, name in enumerate(names):
            height = np.array([float(row.get(name, math.nan)) for row in table.values()])
            place = np.arange(len(table)) + (k - (len(names) - 1) / 2) * slot
            color = OKABE_ITO[k % len(OKABE_ITO)]
            drawn = axes.bar(place, height, slot * 0.9, color=color, label=name)
            numbers = [fmt.format(h) if math.isfinite(h) else "" for h in height]
            axes.bar_label(drawn, numbers, padding=2, fontsize=SMALL)
        across = 0.8 * inches * DPI / len(table)
        groups = [_wrap(group, across, NORMAL) for group in table]
        tilted = _extent(groups, NORMAL)[0] > across * 1.1
        tilt = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if tilted else {}
        axes.set_xticks(range(len(table)), list(table) if tilted else groups, **tilt)
        axes.tick_params(axis="x", length=0)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.margins(y=0.12)
        axes.set_ylabel(ylabel)
        axes.set_title(_wrap(title or "", inches * DPI * 0.9, LARGE))
        lines = list((baseline or {}).items())
        for k, (_, height) in enumerate(lines):
            axes.axhline(height, color=GREY, linewidth=1.1, linestyle=DASHES[k % len(DASHES)])
        _label_lines(axes, [(height, name, GREY) for name, height in lines])
        if grouped:
            figure.legend(loc="outside lower center", ncols=min(len(names), 4), frameon=False)
    return Path(path)


@contextmanager
def _panels(path: str | Path, names: Sequence[str], bounds: Bounds, title: str | None) -> Iterator:
    """Named square-unit axes side by side, at most four in a row, over the same bounds."""
    columns = len(names) if len(names) <= 4 else min(4, -(-len(names) // 2))
    rows, side = -(-len(names) // columns), (3.8, 3.0, 2.3, 1.9)[columns - 1]
    x_low, x_high, y_low, y_high = bounds
    tall = min(max((y_high - y_low) / (x_high - x_low), 0.3), 2) * side
    with _figure(path, columns * side + 0.9, rows * (tall + 0.4) + 0.4) as figure:
        if title:
            wide = _wrap(title, (columns * side + 0.5) * DPI, LARGE)
            figure.suptitle(wide, x=0.02, ha="left", size=LARGE)
        figure.get_layout_engine().set(w_pad=0.06)
        every = [figure.add_subplot(rows, columns, i + 1) for i in range(len(names))]
        for i, (axes, name) in enumerate(zip(every, names, strict=True)):
            axes.set_title(name, size=NORMAL)
            axes.set(xlim=(x_low, x_high), ylim=(y_low, y_high), aspect="equal")
            axes.spines[["top", "right"]].set_visible(True)
            lowest, leftmost = i + columns >= len(names), i % columns == 0
            axes.tick_params(labelbottom=lowest, labelleft=leftmost)
            axes.set(xlabel="$x_1$" if lowest else "", ylabel="$x_2$" if leftmost else "")
        yield figure, every


def scatter_2d(
    points: Mapping[str, Tensor],
    path: str | Path,
    *,
    bounds: Bounds | None = None,
    title: str | None = None,
) -> Path:
    """Draw named point clouds (N, 2), such as data and model, side by side on equal axes.

    Args:
        bounds: (x_low, x_high, y_low, y_high); what holds 99.8% of all points if not given.

    Raises:
        UserError: A cloud is not (N, 2).
    """
    clouds = {name: _points(p, name) for name, p in points.items()}
    if bounds is None:
        # One sample far off must not shrink the picture to a dot.
        low, high = np.nanpercentile(np.concatenate([*clouds.values()]), [0.1, 99.9], axis=0)
        room = 0.06 * max(*(high - low), 1e-6)
        bounds = low[0] - room, high[0] + room, low[1] - room, high[1] + room
    with _panels(path, list(clouds), bounds, title) as (_, every):
        for axes, cloud in zip(every, clouds.values(), strict=True):
            dense = math.sqrt(2000 / max(len(cloud), 500))
            look = {"s": 5 * dense, "alpha": min(0.6 * dense, 0.6), "linewidths": 0}
            axes.scatter(*cloud.T, color=OKABE_ITO[0], rasterized=True, **look)
    return Path(path)


def _density(log_prob: Callable, bounds: Bounds, side: int = 200) -> np.ndarray:
    """exp(log_prob) at the centres of a grid of side x side cells; row 0 is the lowest y."""
    x_low, x_high, y_low, y_high = bounds
    middle = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(
        y_low + (y_high - y_low) * middle, x_low + (x_high - x_low) * middle, indexing="ij"
    )
    grid = torch.stack([x.reshape(-1), y.reshape(-1)], dim=1)
    values = [_array(log_prob(part)).reshape(-1) for part in grid.split(10_000)]
    values = np.concatenate(values)
    if values.size != side * side or np.isnan(values).any():
        raise UserError(
            f"expected {side * side} log densities without NaN, got {values.size} of which "
            f"{np.isnan(values).sum()} NaN: return one number for each point of the plane"
        )
    return np.exp(np.minimum(values, 700)).reshape(side, side)


def density_2d(
    log_prob: Callable[[Tensor], Tensor] | Mapping[str, Callable[[Tensor], Tensor]],
    path: str | Path,
    *,
    bounds: Bounds,
    points: Tensor | Mapping[str, Tensor] | None = None,
    title: str | None = None,
) -> Path:
    """Draw densities over the plane with contours, panels side by side on one colour scale.

    Args:
        log_prob: From points (M, 2), float32 on the CPU, to log densities (M,) in nats; or
            several by name.
        bounds: (x_low, x_high, y_low, y_high).
        points: Samples (N, 2) drawn on top, of every panel or by its name.

    Raises:
        UserError: A log density is NaN or their number is wrong.
    """
    panels = log_prob if isinstance(log_prob, Mapping) else {"": log_prob}
    images = [_density(f, bounds) for f in panels.values()]
    top = max(np.percentile(image, 99.8) for image in images) or 1.0
    clipped = max(image.max() for image in images) > 1.001 * top
    with _panels(path, list(panels), bounds, title) as (figure, every):
        for axes, name, image in zip(every, panels, images, strict=True):
            shown = axes.imshow(image, origin="lower", extent=bounds, vmin=0, vmax=top)
            levels = [f * top for f in (0.1, 0.3, 0.6) if image.min() < f * top < image.max()]
            if levels:
                how = {"colors": "white", "linewidths": 0.6, "alpha": 0.6}
                axes.contour(image, levels=levels, origin="lower", extent=bounds, **how)
            cloud = points.get(name) if isinstance(points, Mapping) else points
            if cloud is not None:
                look = {"color": "white", "alpha": 0.5, "linewidths": 0, "rasterized": True}
                axes.scatter(*_points(cloud, "points").T, s=2.5, **look)
        extend = "max" if clipped else "neither"
        figure.colorbar(shown, ax=every, label="density", extend=extend, pad=0.02)
    return Path(path)


def _spread(texts: Sequence) -> None:
    """Centre texts at their points, outlined in white, and move apart those that overlap."""
    from matplotlib.patheffects import withStroke

    for text in texts:
        text.set(ha="center", va="center", path_effects=[withStroke(linewidth=3, foreground="w")])
    texts[0].figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts]
    start = np.array([((b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2) for b in boxes])
    size = np.array([(b.width + 4, b.height * 0.85) for b in boxes])
    place = start + np.arange(len(texts))[:, None] * 1e-3  # so that equal points part, too
    for _ in range(100):
        for i, j in zip(*np.triu_indices(len(texts), 1), strict=True):
            gap = place[j] - place[i]
            overlap = (size[i] + size[j]) / 2 - np.abs(gap)
            if (overlap > 0).all():
                side = overlap.argmin()  # the shorter way out
                push = math.copysign(overlap[side] / 2, gap[side])
                place[j, side] += push
                place[i, side] -= push
    to_data = texts[0].axes.transData.inverted()
    for text, spot in zip(texts, to_data.transform(place), strict=True):
        text.set_position(spot)


def latent_scatter(
    z: Tensor,
    labels: Tensor,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
) -> Path:
    """Draw codes (N, 2) coloured by class, with each class's name at its median.

    Args:
        class_names: Names by class number; the numbers themselves if not given.

    Raises:
        UserError: The codes are not (N, 2) or the labels not N.
    """
    from matplotlib.colors import to_rgb

    z, labels = _points(z, "codes"), _array(labels).astype(int)
    _check_count(labels, len(z), "labels")
    shuffle = np.random.default_rng(0).permutation(len(z))  # so that no class lies on top
    palette = np.array([to_rgb(color) for color in MUTED])
    colors = palette[labels % len(MUTED)]
    width, height = np.maximum(np.ptp(z, axis=0), 1e-6)
    with _figure(path, 5.6, 5.2 * min(max(height / width, 0.5), 1.1)) as figure:
        axes = figure.add_subplot()
        size = min(max(20_000 / len(z), 4), 20)
        look = {"s": size, "alpha": 0.65, "linewidths": 0, "rasterized": True}
        axes.scatter(*z[shuffle].T, c=colors[shuffle], **look)
        names = []
        for k in np.unique(labels):
            name = str(class_names[k]) if class_names is not None else str(k)
            middle, color = np.median(z[labels == k], axis=0), 0.7 * palette[k % len(MUTED)]
            names.append(axes.text(*middle, name, color=color, weight="bold", size=LARGE + 1))
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel="$z_1$", ylabel="$z_2$")
        axes.set_title(_wrap(title or "", 740, LARGE))
        _spread(names)
    return Path(path)


def _frame(images, label: str | None, font, widest: float):
    """One animation frame: an image (C, H, W) or a grid of a batch, its text centred below."""
    from PIL import Image, ImageDraw

    array = _array(images)
    pixels = _pixels(array[None] if array.ndim == 3 else array)
    columns = _columns(len(pixels))
    rows, (height, width) = -(-len(pixels) // columns), pixels.shape[1:3]
    scale = max(1, math.ceil(256 / max(rows * height, columns * width)))
    pitch = (scale * height + 2, scale * width + 2)
    picture = _mosaic(pixels, columns, scale=scale, pitch=pitch)
    page = picture = Image.fromarray(picture)
    if label is not None:
        size = max(picture.width, math.ceil(widest) + 8), picture.height + 28
        page = Image.new("RGB", size, "white")
        page.paste(picture, ((page.width - picture.width) // 2, 0))
        place = (page.width / 2, picture.height + 14)
        ImageDraw.Draw(page).text(place, label, fill="black", font=font, anchor="mm")
    grey = (pixels == pixels[..., :1]).all()  # 256 greys are exact; colours are a best choice
    return page.convert("L") if grey else page.quantize(256, dither=Image.Dither.NONE)


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
    from matplotlib import get_data_path
    from PIL import ImageFont

    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) != 1:
        raise UserError(f"expected frames of one shape, got {sorted(shapes)}: make them equal")
    _check_count(labels, len(frames), "labels")
    font = ImageFont.truetype(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"), 17)
    texts = [None] * len(frames) if labels is None else [str(text) for text in labels]
    widest = max(font.getlength(text or "") for text in texts)
    pages = [_frame(f, t, font, widest) for f, t in zip(frames, texts, strict=True)]
    step = max(1000 / fps, 20)
    durations = [step] * (len(pages) - 1) + [max(step, 1000 * hold_last_seconds)]
    with _target(path, ["gif"]) as (part, _):
        pages[0].save(
            part, "GIF", save_all=True, append_images=pages[1:], duration=durations, loop=0
        )
    return Path(path)
