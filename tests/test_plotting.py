"""The figures: what is in the files, and what drawing must leave alone."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from code_examples.utils import pictures, plotting
from code_examples.utils.errors import UserError


def decoded(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def first_seen(picture, colors):
    """Top-left pixel (row, column) of each colour, which must fill a square somewhere."""
    places = []
    for color in colors:
        same = (picture == np.array(color)).all(-1)
        # a few pixels at the edges of letters may happen to have the colour, too
        rows, columns = np.nonzero(same & np.roll(same, -5, axis=0) & np.roll(same, -5, axis=1))
        assert len(rows), f"colour {color} is not in the picture"
        places.append((int(rows.min()), int(columns.min())))
    return places


def flat_images(greys, channels=1):
    return torch.tensor(greys).view(-1, 1, 1, 1).expand(-1, channels, 6, 6) / 255


def gaussian(points):
    return -0.5 * points.square().sum(1) - np.log(2 * np.pi)


def every_picture(folder):
    """Each function called once, plainly: name -> path returned."""
    g = torch.Generator().manual_seed(0)
    x, z = torch.rand(7, 1, 8, 8, generator=g), torch.randn(50, 2, generator=g)
    steps = range(500)
    loss = torch.rand(500, generator=g) + 1
    bounds = (-3, 3, -3, 3)
    return {
        "grid": pictures.image_grid(x, folder / "a/grid.png", columns=5, labels=range(7)),
        "rows": pictures.image_rows(
            {"in": x, "out": x}, folder / "rows.png", notes={"out": "1 dB"}
        ),
        "strips": pictures.strips({"1 to 2": x}, folder / "s.png", ticks=range(7), xlabel="t"),
        "curves": plotting.curves(
            {"train": (steps, loss), "test": ([0, 9], [1.0, 2.0])},
            folder / "curves.png",
            xlabel="step",
            ylabel="loss (nats)",
            hlines={"PCA": 1.5},
            band={"test": ([0.9, 1.8], [1.1, 2.2])},
            logy=True,
            ylim=(0.5, 2.0),
        ),
        "bars": plotting.bars({"a": 1.0, "b": -2.0}, folder / "bars.png", ylabel="score"),
        "groups": plotting.bars({"a": {"p": 1}, "b": {"q": 2}}, folder / "g.png", ylabel="score"),
        "scatter": plotting.scatter_2d({"data": z, "model": -z}, folder / "scatter.png"),
        "density": plotting.density_2d(gaussian, folder / "d.png", bounds=bounds, points=z),
        "lines": plotting.density_2d(
            {"a": gaussian, "b": gaussian},
            folder / "lines.png",
            bounds=bounds,
            lines={"b": plotting.grid_2d(bounds)},
            one_scale=False,
            columns=1,
        ),
        "field": plotting.vector_field_2d(
            {"to 0": lambda x: -x, "turn": lambda x: x.flip(1)},
            folder / "field.png",
            bounds=bounds,
            log_prob=gaussian,
        ),
        "sounds": plotting.spectrograms({"a": loss, "b": -loss}, folder / "sound.png", rate=800),
        "latent": plotting.latent_scatter(z, torch.arange(50) % 10, folder / "latent.png"),
        "animation": pictures.animation(x, folder / "x.gif", labels=list("abcdefg")),
    }


def test_every_function_returns_a_picture_of_the_right_kind_and_leaves_nothing_else(tmp_path):
    paths = every_picture(tmp_path)
    for name, path in paths.items():
        with Image.open(path) as image:
            image.load()
            assert image.format == ("GIF" if name == "animation" else "PNG")
            assert min(image.size) > 50
            assert len(np.unique(np.asarray(image.convert("L")))) > 2, f"{name} is blank"
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == set(paths.values())


def test_drawing_neither_changes_nor_follows_the_settings_of_matplotlib(tmp_path):
    import matplotlib

    plain = decoded(plotting.bars({"a": 1.0}, tmp_path / "a.png", ylabel="score"))
    with matplotlib.rc_context({"xtick.color": "white", "figure.facecolor": "black"}):
        before = dict(matplotlib.rcParams)
        styled = decoded(plotting.bars({"a": 1.0}, tmp_path / "a.png", ylabel="score"))
        assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(styled, plain)


def test_pyplot_is_never_imported_and_importing_draws_in_nothing(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from tests import test_plotting as t\n"
        "from code_examples.utils import plotting\n"
        "t.every_picture(pathlib.Path(sys.argv[1]))\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=True, timeout=60)


@pytest.mark.parametrize(("count", "columns"), [(7, 5), (7, None), (1, None), (12, 4)])
def test_grid_shows_every_image_once_in_reading_order(tmp_path, count, columns):
    greys = [37 + 11 * i for i in range(count)]
    path = pictures.image_grid(flat_images(greys), tmp_path / "a.png", columns=columns)
    picture = decoded(path)
    columns = columns or count
    places = first_seen(picture, [(g, g, g) for g in greys])
    rows = sorted({r for r, _ in places})
    lefts = sorted({c for _, c in places})
    assert places == [(rows[i // columns], lefts[i % columns]) for i in range(count)]
    sizes = {int((picture == g).all(-1).sum()) for g in greys}
    assert len(sizes) == 1, "images are magnified equally"
    assert sizes.pop() % 36 == 0, "each pixel becomes a whole square"
    assert set(np.unique(picture)) == {*greys, 255}, "nothing is blended, empty cells are white"


def test_grid_pixels_are_exact_squares_of_the_input(tmp_path):
    torch.manual_seed(0)
    x = torch.randint(0, 200, (1, 3, 5, 5)) / 255  # white is the page only
    picture = decoded(pictures.image_grid(x, tmp_path / "a.png"))
    inside = (picture != 255).all(-1)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    crop = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = len(crop) // 5
    expected = (x[0] * 255).round().int().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(crop, expected.repeat(scale, 0).repeat(scale, 1))


def test_rows_keep_their_order_and_grey_may_stand_above_colour(tmp_path):
    blue = torch.tensor([0.0, 0.2, 0.8]).view(1, 3, 1, 1).expand(2, 3, 6, 6)
    rows = {"grey": flat_images([40, 90]), "blue": blue}
    picture = decoded(pictures.image_rows(rows, tmp_path / "a.png", notes={"blue": "note"}))
    dark, light, colour = first_seen(picture, [(40, 40, 40), (90, 90, 90), (0, 51, 204)])
    assert dark[0] == light[0] < colour[0]
    assert dark[1] == colour[1] < light[1]


@pytest.mark.parametrize(
    "bad",
    [1.01, -0.01, 255.0, float("nan"), float("inf")],
    ids=["above", "below", "bytes", "nan", "inf"],
)
def test_pixels_outside_the_unit_interval_are_refused(tmp_path, bad):
    x = torch.full((2, 1, 4, 4), 0.5)
    x[1, 0, 2, 3] = bad
    with pytest.raises(UserError, match=r"expected pixels in \[0, 1\], got .*: rescale"):
        pictures.image_grid(x, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_rounding_beyond_the_unit_interval_is_clamped(tmp_path):
    x = torch.tensor([-5e-4, 1 + 5e-4]).view(2, 1, 1, 1).expand(2, 1, 6, 6)
    picture = decoded(pictures.image_grid(x, tmp_path / "a.png"))
    assert set(np.unique(picture)) == {0, 255}


def test_input_may_be_half_precision_with_gradient_or_numpy(tmp_path):
    x = flat_images([0, 51, 102])
    kinds = [x, x.bfloat16(), x.double().requires_grad_(), x.numpy()]
    drawn = [decoded(pictures.image_grid(k, tmp_path / "a.png")) for k in kinds]
    for picture in drawn[1:]:
        assert abs(picture - drawn[0]).max() <= 1
    y = [torch.tensor(v, requires_grad=True) for v in (1.0, 2.0)]
    assert plotting.curves({"a": ([0, 1], y)}, tmp_path / "c.png", xlabel="t", ylabel="y").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p: pictures.image_grid(torch.zeros(4, 4), p),
        lambda p: pictures.image_grid(torch.zeros(0, 1, 4, 4), p),
        lambda p: pictures.image_grid(torch.zeros(2, 2, 4, 4), p),
        lambda p: pictures.image_grid(torch.zeros(2, 1, 4, 4), p, labels=[1]),
        lambda p: pictures.image_grid(torch.zeros(2, 1, 4, 4), p.with_suffix(".xyz")),
        lambda p: pictures.image_rows(
            {"a": torch.zeros(2, 1, 4, 4), "b": torch.zeros(3, 1, 4, 4)}, p
        ),
        lambda p: pictures.strips({"a": torch.zeros(2, 1, 4, 4)}, p, ticks=[0, 1, 2]),
        lambda p: plotting.curves({"a": ([1, 2], [1])}, p, xlabel="x", ylabel="y"),
        lambda p: plotting.scatter_2d({"a": torch.zeros(5, 3)}, p),
        lambda p: plotting.density_2d(lambda x: x[:, 0] * float("nan"), p, bounds=(0, 1, 0, 1)),
        lambda p: plotting.vector_field_2d(lambda x: x[:, :1], p, bounds=(0, 1, 0, 1)),
        lambda p: plotting.vector_field_2d(lambda x: x / 0, p, bounds=(0, 1, 0, 1)),
        lambda p: plotting.latent_scatter(torch.zeros(5, 2), torch.zeros(4), p),
        lambda p: pictures.animation(torch.zeros(2, 1, 4, 4), p),
        lambda p: pictures.animation([torch.zeros(1, 4, 4), torch.zeros(1, 5, 5)], p),
        lambda p: pictures.animation([], p),
    ],
)
def test_a_wrong_argument_gets_one_line_and_no_file(tmp_path, wrong):
    with pytest.raises(UserError, match=r"expected .*, got .*: ") as caught:
        wrong(tmp_path / "a.png")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"^cannot write .*a\.png .*: .*choose another[^\n]*$"):
        pictures.image_grid(torch.zeros(1, 1, 4, 4), tmp_path / "file" / "a.png")


@pytest.mark.parametrize(
    "draw",
    [
        lambda p: pictures.image_grid(torch.rand(1, 1, 4, 4), p),
        lambda p: plotting.bars({"a": 1.0}, p, ylabel="score"),
    ],
    ids=["picture", "chart"],
)
def test_an_existing_picture_survives_when_drawing_fails_half_way(tmp_path, monkeypatch, draw):
    path = draw(tmp_path / "a.png")
    before = path.read_bytes()

    def broken(self, file, *_, **__):
        file.write(b"half a pict")
        raise RuntimeError("no memory")

    monkeypatch.setattr(Image.Image, "save", broken)  # matplotlib encodes its PNGs with it, too
    with pytest.raises(RuntimeError, match="no memory"):
        draw(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("batch", [False, True], ids=["images", "grids"])
def test_animation_has_every_frame_in_order_loops_and_holds_the_last(tmp_path, batch):
    greys = [10, 60, 110, 160, 210]
    frames = flat_images(greys)
    frames = [f.expand(3, 1, 6, 6) for f in frames] if batch else frames
    path = pictures.animation(frames, tmp_path / "a.gif", fps=10, hold_last_seconds=2)
    with Image.open(path) as gif:
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0
        assert max(gif.size) >= 256
        durations, seen = [], []
        for k in range(5):
            gif.seek(k)
            durations.append(gif.info["duration"])
            seen.append(gif.convert("RGB").getpixel((1, 1)))
    assert durations == [100, 100, 100, 100, 2000]
    assert seen == [(g, g, g) for g in greys]


def test_animation_keeps_colours_and_writes_its_label_below_the_picture(tmp_path):
    x = torch.tensor([0.0, 0.2, 0.8]).view(1, 3, 1, 1).expand(2, 3, 8, 8).clone()
    x[1, 0] = 1.0
    plain = pictures.animation(x, tmp_path / "plain.gif")
    labelled = pictures.animation(x, tmp_path / "text.gif", labels=["step 1", "step 1,200"])
    picture, page = decoded(plain), decoded(labelled)
    assert picture.shape == (256, 256, 3)
    assert (picture == [0, 51, 204]).all()
    assert (page[:256] == [0, 51, 204]).all()
    assert page[256:].min() < 60, "black text"
    assert page[256:].mean() > 200, "on white"


def test_running_mean_of_noise_is_near_its_mean_and_of_a_line_is_the_line():
    noise = np.random.default_rng(0).standard_normal(2000)
    assert plotting._is_noisy(noise)
    assert not plotting._is_noisy(np.sin(np.linspace(0, 20, 2000)))
    assert abs(plotting._running_mean(noise, 201)[200:]).max() < 5 / np.sqrt(101)
    line = np.arange(300.0)
    np.testing.assert_allclose(plotting._running_mean(line, 21)[:-10], line[:-10])
    hole = np.where(line == 50, np.nan, 1.0)
    np.testing.assert_allclose(plotting._running_mean(hole, 21), 1.0)


def test_density_is_drawn_with_x_across_and_y_upwards():
    def log_prob(points):
        return torch.where((points[:, 0] > 1) & (points[:, 1] > 0.5), 0.0, -torch.inf)

    image = plotting._density(log_prob, (0, 2, -1, 1), side=4)
    expected = np.zeros((4, 4))
    expected[3:, 2:] = 1
    np.testing.assert_array_equal(image, expected)


YELLOW, VERMILION, ORANGE = (253, 231, 36), (213, 94, 0), (251, 148, 62)  # highest, line, longest


def near(picture, color):
    """Where the picture has that colour, up to rounding."""
    return abs(picture - np.array(color)).max(-1) <= 6


def test_ylim_cuts_a_curve_that_runs_off(tmp_path):
    def height(ylim):
        series = {"a": ([0, 1, 2], [0.5, 0.5, 50.0])}
        path = tmp_path / "a.png"
        plotting.curves(series, path, xlabel="x", ylabel="y", ylim=ylim)
        blue = near(decoded(path), (0, 114, 178))
        return np.nonzero(blue[:, : blue.shape[1] // 3])[0].mean() / len(blue)  # from above

    assert height((0, 1)) < height((0, 2)) - 0.1
    assert height((0, 2)) < height(None) - 0.1


@pytest.mark.parametrize("one_scale", [True, False])
def test_one_scale_dims_a_flat_density_and_each_its_own_does_not(tmp_path, one_scale):
    picture = decoded(
        plotting.density_2d(
            {"wide": lambda x: gaussian(x / 3) - np.log(9), "narrow": gaussian},
            tmp_path / "a.png",
            bounds=(-3, 3, -3, 3),
            one_scale=one_scale,
        )
    )
    wide, narrow = np.array_split(picture[:, : int(0.86 * picture.shape[1])], 2, axis=1)
    assert near(narrow, YELLOW).any()
    assert near(wide, YELLOW).any() != one_scale


def test_columns_stack_panels_and_lines_are_drawn_in_their_panel_only(tmp_path):
    picture = decoded(
        plotting.density_2d(
            {"above": gaussian, "below": gaussian},
            tmp_path / "a.png",
            bounds=(-3, 3, -3, 3),
            lines={"below": torch.tensor([[[1.0, -2.0], [1.0, 2.0]]])},
            columns=1,
        )
    )
    rows, columns = np.nonzero(near(picture, VERMILION))
    assert rows.min() > len(picture) / 2
    assert np.ptp(columns) < 6, "one upright line"
    assert np.ptp(rows) > 100


def test_grid_lines_run_along_one_axis_between_the_bounds():
    grid = plotting.grid_2d((0, 2, -1, 3), lines=3, dots=5)
    assert grid.shape == (6, 5, 2)
    upright, level = grid[:3], grid[3:]
    assert upright[..., 0].tolist() == [[x] * 5 for x in (0, 1, 2)]
    assert level[..., 1].tolist() == [[y] * 5 for y in (-1, 1, 3)]
    assert upright[0, :, 1].tolist() == [-1, 0, 1, 2, 3]
    assert level[0, :, 0].tolist() == [0, 0.5, 1, 1.5, 2]


@pytest.mark.parametrize("direction", [1, -1])
def test_an_arrow_stands_at_its_point_and_its_head_where_the_vector_points(tmp_path, direction):
    def field(x):
        here = (x[:, 0] < 0) & (x[:, 1] > 0)  # one of four arrows, above and to the left
        return torch.stack([direction * here, 0 * here], dim=1).float()

    path = plotting.vector_field_2d(field, tmp_path / "a.png", bounds=(-1, 1, -1, 1), arrows=2)
    picture = decoded(path)
    panel = near(picture, ORANGE)[:, : int(0.85 * picture.shape[1])]  # without the colour bar
    rows, columns = np.nonzero(panel)
    assert rows.max() < len(picture) / 2
    assert columns.max() < 0.6 * panel.shape[1]
    tall = panel.sum(0)[columns.min() : columns.max() + 1]
    left, right = np.array_split(tall, 2)
    assert (right.max() - left.max()) * direction > 10, "the head is wider than the shaft"


def test_an_arrow_longer_than_the_longest_is_cut_and_the_others_keep_their_proportion(tmp_path):
    def length(vector, longest):
        path = plotting.vector_field_2d(
            lambda x: torch.tensor([[0.0, 0.0]] * 4 + [[vector, 0.0]] + [[0.0, 0.0]] * 4),
            tmp_path / "a.png",
            bounds=(-1, 1, -1, 1),
            arrows=3,  # of which the one in the middle is not a dot
            longest=longest,
        )
        picture = decoded(path)
        height, width, _ = picture.shape
        middle = picture[height // 3 : height // 2, int(0.28 * width) : int(0.68 * width)]
        return int((np.ptp(middle, axis=-1) > 60).any(0).sum())  # coloured columns

    assert length(9.0, 4.0) == length(4.0, 4.0)
    assert length(2.0, 4.0) == pytest.approx(length(4.0, 4.0) / 2, rel=0.05)


def test_line_labels_that_meet_are_moved_apart(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(0, 1)
    plotting._label_lines(axes, [(0.5, "a", "k"), (0.5, "b", "k"), (0.501, "c", "k")])
    boxes = sorted((t.get_window_extent() for t in axes.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))
    heights = [t.get_position()[1] for t in axes.texts]
    assert heights == sorted(heights), "the order of the lines is kept"
    assert np.mean(heights) == pytest.approx(0.5, abs=0.01)


def panels_of(picture):
    """The coloured panels one under the other, without the colour bar beside them."""
    coloured = (np.ptp(picture[:, : int(0.8 * picture.shape[1])], axis=-1) > 30).sum(1) > 300
    ends = np.flatnonzero(np.diff(coloured.astype(int)))
    return [picture[top + 1 : bottom + 1] for top, bottom in ends.reshape(-1, 2)]


def test_a_spectrogram_shows_high_tones_above_low_ones_and_time_to_the_right(tmp_path):
    t = torch.arange(8000) / 8000
    low, high = ((2 * torch.pi * hertz * t).sin() for hertz in (500, 3000))
    sounds = {"low": low, "high": high.requires_grad_(), "both": torch.where(t < 0.5, low, high)}
    path = plotting.spectrograms(sounds, tmp_path / "a.png", rate=8000, title="Tones")
    panels = panels_of(decoded(path))
    assert len(panels) == 3
    heights = []
    for panel in panels:  # of the loudest part, as a share of the panel from below; early and late
        rows, columns = np.nonzero(near(panel, YELLOW)[:, : int(0.8 * panel.shape[1])])
        early, late = columns < 0.3 * panel.shape[1], columns > 0.6 * panel.shape[1]
        heights += [1 - np.median(rows[part]) / len(panel) for part in (early, late)]
    quiet, loud = 500 / 4000, 3000 / 4000
    assert heights == pytest.approx([quiet, quiet, loud, loud, quiet, loud], abs=0.02)


@pytest.mark.parametrize("rate", [2000, 16_000])
def test_a_short_sound_and_silence_have_spectrograms_too(tmp_path, rate):
    """Of another rate, whose half is the highest frequency."""
    tone = (2 * torch.pi * 0.125 * torch.arange(128)).sin()
    sounds = {"tone": tone, "nothing": 0 * tone}
    picture = decoded(plotting.spectrograms(sounds, tmp_path / "a.png", rate=rate))
    other = decoded(plotting.spectrograms(sounds, tmp_path / "b.png", rate=2 * rate))
    assert picture.shape != other.shape or (picture != other).any(), "frequencies are told"
    panel, nothing = panels_of(picture)
    rows, _ = np.nonzero(near(panel, YELLOW)[:, : int(0.8 * panel.shape[1])])
    assert 1 - np.median(rows) / len(panel) == pytest.approx(0.25, abs=0.05)
    middle = nothing[:, int(0.2 * nothing.shape[1]) : int(0.7 * nothing.shape[1])]
    assert np.median(middle[..., 1]) < 40, "dark"


def test_a_sound_shorter_than_a_window_is_refused(tmp_path):
    sounds = {"long": torch.zeros(9000), "short": torch.zeros(63)}
    with pytest.raises(UserError, match=r"^expected sounds of at least 64 samples.*longer"):
        plotting.spectrograms(sounds, tmp_path / "a.png", rate=8000)
    assert not list(tmp_path.iterdir())
