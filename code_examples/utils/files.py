"""Writing files so that nothing is ever half-written."""

import contextlib
import json
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
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)  # half a file would hold the space that is missing
        raise UserError(
            f"cannot write {path} ({error.strerror}): free the space or choose another --out"
        ) from None


def check_run_folder(folder: Path) -> None:
    """Refuse a folder that cannot hold a run; leaves no trace of the check.

    Raises:
        UserError: naming the first parent that exists and is no writable folder; or if the folder
            holds other files than a run's, which a run could overwrite.
    """
    parent = folder
    while not os.path.exists(parent):
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        kind = "read-only" if parent.is_dir() else "a file"
        raise UserError(
            f"--out: cannot write to {folder}: {parent} is {kind}; choose another --out"
        )
    if parent == folder and any(folder.iterdir()) and not holds_run(folder):
        raise UserError(
            f"--out: expected a new folder or an earlier run's, got {folder} with other files in "
            "it: choose another --out"
        )


def holds_run(folder: Path) -> bool:
    """Whether an earlier run wrote this folder: its config.json names the script."""
    try:
        return "script" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
