"""Writing files so that nothing is ever half-written."""

import os
from pathlib import Path

from .errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: into a neighbour first, then renamed over the old one.

    Raises:
        UserError: if the folder cannot be written (read-only, no space, a file in its place).
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}): free the space or choose another --out"
        ) from None


def check_writable(folder: Path) -> None:
    """Refuse a folder that could not be created or written, without leaving a trace of the check.

    Raises:
        UserError: naming the first parent that exists and is no writable folder.
    """
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        kind = "read-only" if parent.is_dir() else "a file"
        raise UserError(
            f"--out: cannot write to {folder}: {parent} is {kind}; choose another --out"
        )
