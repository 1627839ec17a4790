"""Charts: each function takes data, writes one PNG whole or not at all and returns its path.

Nothing here touches pyplot or leaves matplotlib's settings changed: it works headless.
"""

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations, cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import UserError
from .pictures import GREY, check_count, to_array, write_picture

# Both are safe for colour-blind readers: Okabe and Ito's for lines and bars, Tol's for classes.
OKABE_ITO = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MUTED = ["#332288", "#88CCEE", "#44AA99", "#117733", "#999933"]
MUTED += ["#DDCC77", "#CC6677", "#882255", "#AA4499", "#888888"]
SMALL, NORMAL, LARGE = 7.5, 9, 10.5  # points
LETTERS = 12.5  # in an inch of a title
STYLE = {
    "figure.dpi": 150,
    "font.size": NORMAL,
    "axes.titlesize": LARGE,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
}
Bounds = tuple[float, float, float, float]


@contextmanager
def _figure(path: str | Path, width: float, height: float) -> Iterator:
    """An empty figure, width x height inches, written when the block ends."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a reader's own dark style would make half of this unreadable
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), layout="compressed")
        yield figure
        how = {"format": "png", "bbox_inches": "tight", "pad_inches": 0.08}
        write_picture(path, ".png", lambda file: figure.savefig(file, **how))


def _points(values, name: str) -> np.ndarray:
    array = to_array(values)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array):
        raise UserError(f"expected {name} of shape (N, 2), got {array.shape}: pick two columns")
    return array


def _running_mean(y: np.ndarray, width: int) -> np.ndarray:
    """Mean in a centred window, without NaN; narrow at the start, where curves fall."""
    half = [min(width // 2, i) for i in range(len(y))]
    return np.array([np.nanmean(y[i - h : i + h + 1]) for i, h in enumerate(half)])


def _is_noisy(y: np.ndarray) -> bool:
    """Whether a long series turns at nearly every point (white noise: at two of three)."""
    steps = np.diff(y)
    return len(steps) > 100 and bool(np.mean(steps[1:] * steps[:-1] < 0) > 0.3)


def _draw_curve(axes, x: np.ndarray, y: np.ndarray, color: str, style: str) -> np.ndarray:
    """Draw one curve, a noisy one pale under its running mean, and return the y of the bold one."""
    if _is_noisy(y):
        axes.plot(x, y, color=color, alpha=0.25, linewidth=0.7)
        y = _running_mean(y, max(5, len(y) // 25))
    axes.plot(x, y, style, color=color, linewidth=1.8, markersize=4, zorder=3)
    return y


def _part(texts: Sequence, *, sideways: bool) -> None:
    """Move apart texts that overlap on the page, each pair by the shorter way out."""
    if len(texts) < 2:
        return  # and save the time of laying the figure out
    texts[0].figure.draw_without_rendering()  # lays the axes out, so that pixels are known
    boxes = [text.get_window_extent() for text in texts]
    size = np.array([(b.width + 4 if sideways else math.inf, b.height + 1) for b in boxes])
    start = np.array([(b.x0 + b.x1, b.y0 + b.y1) for b in boxes]) / 2
    start += np.arange(len(texts))[:, None] * 1e-3  # so that equal points part, too
    place = start.copy()
    for i, j in list(combinations(range(len(texts)), 2)) * 100:
        order = np.sign(start[j] - start[i])
        overlap = (size[i] + size[j]) / 2 - order * (place[j] - place[i])
        if (overlap > 0).all():
            side = overlap.argmin()
            push = order[side] * overlap[side] / 2
            place[j, side] += push
            place[i, side] -= push
    for text, shift in zip(texts, place - start, strict=True):
        to_page = text.get_transform()
        spot = to_page.transform(text.get_position()) + shift
        text.set_position(to_page.inverted().transform(spot))


def _horizontal_lines(axes, heights: Mapping[str, float] | None) -> list[tuple[float, str, str]]:
    """Draw dashed lines and return their (y, name, colour)."""
    ends = [(height, name, GREY) for name, height in (heights or {}).items()]
    for height, _, color in ends:
        axes.axhline(height, color=color, linewidth=1.1, linestyle=(0, (5, 2)))
    return ends


def _label_lines(axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each (y, name, colour) at the right edge of the axes, moved apart where they meet."""
    beside = {"va": "center", "transform": axes.get_yaxis_transform()}
    heights = np.clip([y for y, _, _ in ends], *axes.get_ylim())
    for height, (_, name, color) in zip(heights, ends, strict=True):
        axes.text(1.015, height, name, color=color, **beside)
    if ends:
        _part(axes.texts[-len(ends) :], sideways=False)


def _plain_log_ticks(axis) -> None:
    """Plain numbers at 1, 2, 5 of each decade while few decades are shown."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axis.get_view_interval()
    if axis.get_scale() == "log" and high / low < 1e3:
        axis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
        axis.set_major_formatter("{x:g}")


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    path: str | Path,
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    logy: bool = False,
    logx: bool = False,
    ylim: tuple[float, float] | None = None,
    hlines: Mapping[str, float] | None = None,
    band: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    markers: bool = False,
) -> Path:
    """Draw named curves, each labelled at its end; a long noisy one as its running mean.

    Args:
        series: Name to (x, y). What is not finite is left out.
        xlabel, ylabel: Quantity with unit.
        ylim: Lowest and highest y shown, where a curve that runs off would flatten the others.
        hlines: Name to height of dashed reference lines, such as {"PCA 0.0168": 0.0168}.
        band: For some of the series, lowest and highest y at each x, such as over seeds.
        markers: Mark the points themselves, for few measured points.

    Raises:
        UserError: An x and a y differ in length.
    """
    with _figure(path, 6.0, 3.6) as figure:
        axes = figure.add_subplot()
        ends = _draw_curves(axes, series, band or {}, "o-" if markers else "-")
        ends += _horizontal_lines(axes, hlines)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=textwrap.fill(title, 66))
        axes.set_xscale("log" if logx else "linear")
        _finish_curves(axes, ends, ylim, logy=logy)
    return Path(path)


def _draw_curves(
    axes, series: Mapping[str, tuple], band: Mapping[str, tuple], style: str
) -> list[tuple[float, str, str]]:
    """Draw named curves with their bands; return (last y, name, colour) of each."""
    ends = []
    for (name, xy), color in zip(series.items(), cycle(OKABE_ITO), strict=False):
        x, y = map(to_array, xy)
        check_count(x, len(y), f"x values for {name}")
        if name in band:
            low, high = map(to_array, band[name])
            axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
        y = _draw_curve(axes, x, y, color, style)
        ends += [(end, name, color) for end in y[-1:]]
    return ends


def _finish_curves(axes, ends: Sequence[tuple], ylim: tuple | None, *, logy: bool) -> None:
    """Scale, grid, and the names at the ends of the curves."""
    axes.set_yscale("log" if logy else "linear")
    axes.set_ylim(ylim)
    axes.margins(x=0.02)
    axes.grid(color="#E4E4E4", linewidth=0.6)
    _plain_log_ticks(axes.xaxis)
    _plain_log_ticks(axes.yaxis)
    _label_lines(axes, ends)


def curve_panels(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    path: str | Path,
    *,
    xlabel: str,
    title: str = "",
    logy: Sequence[str] = (),
    columns: int = 2,
) -> Path:
    """Draw several panels of named curves over one quantity.

    Args:
        panels: What a panel's y axis says, to its curves as in `curves`.
        xlabel: The quantity along x, of all panels.
        logy: Panels with a logarithmic y axis.
        columns: Most panels in a row.
    """
    rows = -(-len(panels) // columns)
    columns = -(-len(panels) // rows)
    with _figure(path, 4.4 * columns, 2.3 * rows + 0.6) as figure:
        every = figure.subplots(rows, columns, squeeze=False, sharex=True).flat
        for axes, (ylabel, series) in zip(every, panels.items(), strict=False):
            ends = _draw_curves(axes, series, {}, "-")
            axes.set(ylabel=ylabel)
            _finish_curves(axes, ends, None, logy=ylabel in logy)
        for axes in every[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel(xlabel, fontsize=10)
        figure.suptitle(textwrap.fill(title, 40 * columns))
    return Path(path)


def bars(
    values: Mapping[str, float] | Mapping[str, Mapping[str, float]],
    path: str | Path,
    *,
    ylabel: str,
    title: str = "",
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
    count, width = len(table) * len(names), 0.8 / len(names)
    inches = min(max(2.0 + 0.55 * count + 0.25 * len(table), 3.2), 6.0 if count < 16 else 8.0)
    with _figure(path, inches, 3.4) as figure:
        axes = figure.add_subplot()
        for k, name in enumerate(names):
            heights = [float(row.get(name, math.nan)) for row in table.values()]
            places = np.arange(len(table)) + (k - (len(names) - 1) / 2) * width
            color = OKABE_ITO[k % len(OKABE_ITO)]
            drawn = axes.bar(places, heights, 0.9 * width, color=color, label=name)
            axes.bar_label(drawn, fmt=fmt, padding=2, fontsize=SMALL)
        room = int(LETTERS * inches / len(table))
        tilted = max(map(len, " ".join(table).split())) > room
        groups = list(table) if tilted else [textwrap.fill(group, room) for group in table]
        how = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if tilted else {}
        axes.set_xticks(range(len(table)), groups, **how)
        axes.tick_params(axis="x", length=0)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.margins(y=0.12)
        axes.set(ylabel=ylabel, title=textwrap.fill(title, int(0.9 * LETTERS * inches)))
        _label_lines(axes, _horizontal_lines(axes, baseline))
        if grouped:
            figure.legend(loc="outside lower center", ncols=min(len(names), 4), frameon=False)
    return Path(path)


@contextmanager
def _panels(
    path: str | Path,
    names: Sequence[str],
    bounds: Bounds,
    title: str,
    *,
    columns: int = 4,
    letter: str = "x",
) -> Iterator:
    """A figure and its named axes, some in a row, with equal units over the same bounds."""
    from matplotlib.ticker import MaxNLocator, MultipleLocator

    rows = -(-len(names) // columns)
    columns = -(-len(names) // rows)
    x_low, x_high, y_low, y_high = bounds
    side = min(3.8, 6.4 / columns)
    tall = side * (y_high - y_low) / (x_high - x_low)
    longer = (x_low, x_high) if tall < side else (y_low, y_high)
    ticks = MaxNLocator(6, steps=(1, 2, 5, 10)).tick_values(*longer)  # as far apart along both
    with _figure(path, columns * side + 0.9, rows * (tall + 0.4) + 0.4) as figure:
        if title:
            lines = textwrap.fill(title, int(LETTERS * columns * side))
            figure.suptitle(lines, x=0.02, ha="left", size=LARGE)
        figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)
        every = [figure.add_subplot(rows, columns, i + 1) for i in range(len(names))]
        for axes, name in zip(every, names, strict=True):
            axes.set_title(name, size=NORMAL)
            axes.set(xlim=(x_low, x_high), ylim=(y_low, y_high), aspect="equal")
            axes.set(xlabel=f"${letter}_1$", ylabel=f"${letter}_2$")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MultipleLocator(ticks[1] - ticks[0]))
            axes.label_outer()
            axes.spines[["top", "right"]].set_visible(True)
        yield figure, every


def scatter_2d(
    points: Mapping[str, Tensor],
    path: str | Path,
    *,
    bounds: Bounds | None = None,
    columns: int = 4,
    title: str = "",
    letter: str = "x",
) -> Path:
    """Draw named point clouds (N, 2), such as data and model, side by side on equal axes.

    Args:
        columns: Most panels in a row.
        bounds: (x_low, x_high, y_low, y_high); what holds 99.8% of all points if not given.
        letter: What the axes are called, with 1 and 2: z for codes.

    Raises:
        UserError: A cloud is not (N, 2).
    """
    clouds = {name: _points(p, name) for name, p in points.items()}
    if bounds is None:
        # One sample far off must not shrink the picture to a dot.
        low, high = np.nanpercentile(np.concatenate([*clouds.values()]), [0.1, 99.9], axis=0)
        room = 0.06 * max(*(high - low), 1e-6)
        bounds = low[0] - room, high[0] + room, low[1] - room, high[1] + room
    how = {"columns": columns, "letter": letter}
    with _panels(path, list(clouds), bounds, title, **how) as (_, every):
        for axes, cloud in zip(every, clouds.values(), strict=True):
            dense = min(math.sqrt(2000 / len(cloud)), 2)
            look = {"s": 5 * dense, "alpha": min(0.6 * dense, 0.6), "linewidths": 0}
            axes.scatter(*cloud.T, color=OKABE_ITO[0], **look)
    return Path(path)


def grid_2d(bounds: Bounds, *, lines: int = 13, dots: int = 200) -> Tensor:
    """Lines of a grid as rows of dots, to be pushed through a map x = f(z) and drawn.

    Returns:
        (2 lines, dots, 2) float32: first the upright lines from left to right, then the level
        ones from below; the outermost lie on the bounds.
    """
    x_low, x_high, y_low, y_high = bounds
    x, y = torch.linspace(x_low, x_high, lines), torch.linspace(y_low, y_high, lines)
    upright = torch.cartesian_prod(x, torch.linspace(y_low, y_high, dots))
    level = torch.cartesian_prod(y, torch.linspace(x_low, x_high, dots)).flip(1)
    return torch.cat([upright, level]).view(2 * lines, dots, 2)


def _centres(bounds: Bounds, columns: int, rows: int) -> Tensor:
    """Centres of the cells of a grid, row by row from the lowest y, (rows columns, 2) float32."""
    x_low, x_high, y_low, y_high = bounds
    x = x_low + (x_high - x_low) * (torch.arange(columns) + 0.5) / columns
    y = y_low + (y_high - y_low) * (torch.arange(rows) + 0.5) / rows
    return torch.cartesian_prod(y, x).flip(1)


def _density(log_prob: Callable, bounds: Bounds, side: int = 200) -> np.ndarray:
    """exp(log_prob) at the centres of a grid of side x side cells; row 0 is the lowest y."""
    grid = _centres(bounds, side, side)
    values = np.concatenate([to_array(log_prob(part)) for part in grid.split(10_000)])
    if np.isnan(values).any():
        raise UserError(
            f"expected log densities, got NaN at {np.isnan(values).sum()} of {len(grid)} points: "
            "return a number, or -inf where nothing can be, for each"
        )
    return np.exp(values).reshape(side, side)


def density_2d(
    log_prob: Callable[[Tensor], Tensor] | Mapping[str, Callable[[Tensor], Tensor]],
    path: str | Path,
    *,
    bounds: Bounds,
    points: Tensor | Mapping[str, Tensor] | None = None,
    lines: Tensor | Mapping[str, Tensor] | None = None,
    one_scale: bool = True,
    columns: int = 4,
    title: str = "",
) -> Path:
    """Draw densities over the plane with contours, panels side by side on one colour scale.

    Args:
        log_prob: From points (M, 2), float32 on the CPU, to log densities (M,) in nats; or
            several by name.
        bounds: (x_low, x_high, y_low, y_high).
        points: Samples (N, 2) drawn on top, of every panel or by its name.
        lines: Lines (L, dots, 2) drawn on top, such as `grid_2d` or its image under a map.
        one_scale: False brightens each panel up to its own highest density, without a colour bar.
        columns: Most panels in a row.

    Raises:
        UserError: A log density is NaN.
    """
    from matplotlib.collections import LineCollection

    panels = log_prob if isinstance(log_prob, Mapping) else {"": log_prob}
    images = [_density(f, bounds) for f in panels.values()]
    tops = [np.percentile(image, 99.8) for image in images]  # one spike must not darken the rest
    if one_scale:
        tops = [max(tops)] * len(tops)
    over = {"origin": "lower", "extent": bounds}
    fine = 1 if min(len(panels), columns) < 4 else 0.5  # thinner lines and dots in small panels
    with _panels(path, list(panels), bounds, title, columns=columns) as (figure, every):
        for axes, name, image, top in zip(every, panels, images, tops, strict=True):
            shown = axes.imshow(image, vmin=0, vmax=top, **over)
            levels = [f * top for f in (0.1, 0.3, 0.6) if image.min() < f * top < image.max()]
            if levels:
                look = {"colors": "white", "linewidths": 0.6 * fine, "alpha": 0.6}
                axes.contour(image, levels, **look, **over)
            cloud = points.get(name) if isinstance(points, Mapping) else points
            if cloud is not None:
                look = {"color": "white", "alpha": 0.5, "linewidths": 0, "s": 2.5 * fine}
                axes.scatter(*_points(cloud, "points").T, **look)
            drawn = lines.get(name) if isinstance(lines, Mapping) else lines
            if drawn is not None:
                look = {"colors": OKABE_ITO[1], "linewidths": 1.6 if len(drawn) < 6 else 0.8}
                axes.add_collection(LineCollection(to_array(drawn), **look), autolim=False)
        if one_scale:
            figure.colorbar(shown, ax=every, label="density", extend="max", pad=0.02)
    return Path(path)


def vector_field_2d(
    field: Callable[[Tensor], Tensor] | Mapping[str, Callable[[Tensor], Tensor]],
    path: str | Path,
    *,
    bounds: Bounds,
    log_prob: Callable[[Tensor], Tensor] | None = None,
    longest: float | None = None,
    arrows: int = 24,
    columns: int = 4,
    title: str = "",
) -> Path:
    """Draw vector fields over the plane as arrows, panels side by side on one scale of lengths.

    An arrow's middle is at its point, and its colour says the vector's length, too.

    Args:
        field: From points (M, 2), float32 on the CPU, to vectors (M, 2); or several by name.
        bounds, log_prob, columns: As in `density_2d`; the density is grey, behind the arrows.
        longest: Vectors longer than this are drawn with this length, so that they do not shrink
            the others to dots; the longest of all but 5% if not given.
        arrows: Arrows along the longer side.

    Raises:
        UserError: A field's vectors are not (M, 2) finite numbers.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    panels = field if isinstance(field, Mapping) else {"": field}
    x_low, x_high, y_low, y_high = bounds
    step = max(x_high - x_low, y_high - y_low) / arrows
    grid = _centres(bounds, round((x_high - x_low) / step), round((y_high - y_low) / step))
    vectors = [_points(f(grid), f"vectors {name}".strip()) for name, f in panels.items()]
    lengths = [np.linalg.norm(v, axis=1) for v in vectors]
    if not np.isfinite(lengths).all():
        raise UserError("expected finite vectors, got NaN or infinity: narrow the bounds")
    longest = longest or max(np.percentile(lengths, 95), 1e-12)
    image = None if log_prob is None else _density(log_prob, bounds)
    colors = ListedColormap(colormaps["plasma"](np.linspace(0, 0.75, 64)))  # its end is too pale
    look = {"scale": longest / (1.15 * step), "width": 0.09 * step, "cmap": colors}
    look |= dict.fromkeys(("units", "angles", "scale_units"), "xy") | {"pivot": "mid"}
    look |= {"headwidth": 4, "headlength": 4, "headaxislength": 3.6, "clim": (0, longest)}
    with _panels(path, list(panels), bounds, title, columns=columns) as (figure, every):
        for axes, v, length in zip(every, vectors, lengths, strict=True):
            if image is not None:
                grey = {"cmap": "Greys", "vmin": 0, "vmax": 2 * image.max()}
                axes.imshow(image, origin="lower", extent=bounds, **grey)
            v = v * np.minimum(1, longest / np.maximum(length, 1e-12))[:, None]
            shown = axes.quiver(*to_array(grid).T, *v.T, length, **look)
        how = {"label": "length of the vector", "extend": "max", "pad": 0.02, "aspect": 30}
        figure.colorbar(shown, ax=every, **how)
    return Path(path)


def spectrograms(
    sounds: Mapping[str, Tensor], path: str | Path, *, rate: int, title: str = ""
) -> Path:
    """Draw how loud each frequency is over time, named sounds (T,) one under the other.

    Args:
        rate: Samples a second.

    Raises:
        UserError: A sound is shorter than the window of 64 samples.
    """
    window = 64 if min(map(len, sounds.values())) < 4096 else 512
    if (shortest := min(map(len, sounds.values()))) < window:
        raise UserError(
            f"expected sounds of at least {window} samples, got {shortest}: give longer ones"
        )
    with _figure(path, 7.2, 2.2 * len(sounds) + 0.7) as figure:
        if title:
            figure.suptitle(title, x=0.02, ha="left", size=LARGE)
        every = figure.subplots(len(sounds), sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (name, sound) in zip(every, sounds.items(), strict=True):
            # a little noise below 16 bits: silence has no logarithm
            heard = to_array(sound) + np.random.default_rng(0).normal(size=len(sound)) * 2e-5
            how = {"NFFT": window, "noverlap": window * 3 // 4, "vmin": -110, "vmax": -30}
            shown = axes.specgram(heard, Fs=rate, **how)[3]
            axes.set_title(name, size=NORMAL)
            axes.set_ylabel("Hz")
            axes.label_outer()
        every[-1].set_xlabel("seconds")
        figure.colorbar(shown, ax=every, label="decibels", extend="both", pad=0.02)
    return Path(path)


def latent_scatter(
    z: Tensor,
    labels: Tensor,
    path: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    title: str = "",
) -> Path:
    """Draw codes (N, 2) coloured by class, with each class's name at its median.

    Args:
        class_names: Names by class number; the numbers themselves if not given.

    Raises:
        UserError: The codes are not (N, 2) or the labels not N.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patheffects import withStroke

    z, labels = _points(z, "codes"), to_array(labels).astype(int)
    check_count(labels, len(z), "labels")
    shuffle = np.random.default_rng(0).permutation(len(z))  # so that no class lies on top
    colors = np.array(MUTED)[labels % len(MUTED)]
    with _figure(path, 5.6, 5.2) as figure:
        axes = figure.add_subplot()
        look = {"s": min(max(20_000 / len(z), 4), 20), "alpha": 0.65, "linewidths": 0}
        axes.scatter(*z[shuffle].T, c=colors[shuffle], **look)
        outline = [withStroke(linewidth=3, foreground="white")]
        look = {"size": LARGE + 1, "weight": "bold", "ha": "center", "va": "center"}
        for k in np.unique(labels):
            name = str(k if class_names is None else class_names[k])
            darker = 0.7 * np.array(to_rgb(MUTED[k % len(MUTED)]))
            middle = np.median(z[labels == k], axis=0)
            axes.text(*middle, name, color=darker, path_effects=outline, **look)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel="$z_1$", ylabel="$z_2$", title=textwrap.fill(title, 62))
        _part(axes.texts, sideways=True)
    return Path(path)
