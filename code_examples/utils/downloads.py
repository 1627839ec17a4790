"""The data sets that torchvision downloads, read as whole tensors of uint8."""

import os
import re
import socket
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from .errors import UserError

DOWNLOADS = {  # name: (torchvision class, MB to download, what to delete when it is damaged)
    "mnist": ("MNIST", 12, "MNIST"),
    "fashion-mnist": ("FashionMNIST", 31, "FashionMNIST"),
    "kmnist": ("KMNIST", 21, "KMNIST"),
    "cifar10": ("CIFAR10", 170, "cifar-10-batches-py"),
    "svhn": ("SVHN", 246, "*_32x32.mat"),
}
PATIENCE = 30  # seconds without a byte, after which a dead connection is given up
Part = tuple[Tensor, Tensor]


def read_download(name: str, root: Path) -> tuple[Part, Part, tuple[str, ...]]:
    """Read a set with its own split, downloading it first if files are missing.

    Args:
        name: A key of `DOWNLOADS`.
        root: Folder in torchvision's layout; written to only by a download.

    Returns:
        Training and test part, each pictures (N, C, H, W) uint8 and labels (N,) int64; and the
        names of the classes.

    Raises:
        UserError: if the files are damaged, or missing and cannot be downloaded.
    """
    parts = _open_both(name, root)
    if parts is None:
        _download(name, root)
        parts = _open_both(name, root)
    if parts is None:  # somebody else removes files at this moment
        raise _damaged(name, root, "files that vanish")
    class_names = tuple(c.split(" - ")[0] for c in getattr(parts[0], "classes", "0123456789"))
    train, test = (_tensors(name, part) for part in parts)
    for images, labels in (train, test):
        if not 0 < len(images) == len(labels):
            raise _damaged(name, root, f"{len(images)} pictures with {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise _damaged(name, root, f"labels from {labels.min()} to {labels.max()}")
    return train, test, class_names


def _tensors(name: str, part) -> Part:  # part is torchvision's data set object
    """Bring the arrays of one part to (N, C, H, W) uint8 and (N,) int64."""
    images = torch.as_tensor(part.data)
    if name == "svhn":
        return images, torch.as_tensor(part.labels).long()
    labels = torch.as_tensor(part.targets).long()
    if name == "cifar10":  # torchvision holds it as (N, H, W, C)
        return images.permute(0, 3, 1, 2), labels
    return images[:, None], labels


def _open_both(name: str, root: Path) -> list | None:
    """Open torchvision's training and test part; None if files are missing."""
    try:
        return [_open(name, root, train=train) for train in (True, False)]
    except ModuleNotFoundError:
        raise
    except Exception as error:  # parsers meet garbage with errors of every type
        if isinstance(error, RuntimeError) and "not found" in str(error):
            return None
        raise _damaged(name, root, _one_line(error)) from error


def _open(name: str, root: Path, *, train: bool, download: bool = False) -> object:
    """Make torchvision's data set object."""
    from torchvision import datasets

    part = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy dislikes the old pickles of CIFAR-10
        return getattr(datasets, DOWNLOADS[name][0])(root, download=download, **part)


def _download(name: str, root: Path) -> None:
    """Download into a folder of its own below root, then move whole files: all or nothing."""
    _, megabytes, target = DOWNLOADS[name]
    print(f"downloading {name}, about {megabytes} MB, to {root}", file=sys.stderr)
    is_new, patience = not root.exists(), socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as partial:
            for train in (True, False):
                _open(name, Path(partial), train=train, download=True)
            _move_files(Path(partial), root)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # network, disk, rights, archive: the remedies are the same
        there = " (what is there is incomplete or damaged)" if any(root.glob(target)) else ""
        raise UserError(
            f"expected {name} in {root}{there} or a way to download it, got {_one_line(error)}: "
            "mend that, name another --data-root, or use mnist5k, which needs no network"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
        if is_new:
            with suppress(OSError):  # only an empty folder can be removed
                root.rmdir()


def _move_files(source: Path, goal: Path) -> None:
    """Move every file but the archives, which are unpacked by now; each arrives whole."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix != ".gz":
            (goal / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, goal / path.relative_to(source))


def _damaged(name: str, root: Path, found: str) -> UserError:
    """Make the error for files that are there and cannot be used."""
    return UserError(
        f"expected the files of {name}, got damaged ones ({found}): "
        f"delete {root / DOWNLOADS[name][2]} and start again"
    )


def _one_line(error: Exception) -> str:
    """Shorten an error's text to one line of at most 160 characters."""
    offline = re.search(r"<urlopen error ([^>]*)>", str(error))
    if offline:
        return f"no connection ({offline[1]})"
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
