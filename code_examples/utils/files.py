"""Writing a file whole or not at all."""

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
