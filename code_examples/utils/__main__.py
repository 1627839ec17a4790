"""A table of all runs: `python -m code_examples.utils --sort frechet_distance`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .flags import ROOT, cli

COLUMNS = (
    "training_seconds",
    "parameters",
    "frechet_distance",
    "precision",
    "recall",
    "test_mse_per_pixel",
)


@dataclass(frozen=True)
class Table:
    """Print every run below a folder with its metrics, one line a run."""

    folder: Path = ROOT / "outputs"
    """Where to look for runs."""
    sort: str = "run"
    """Column to sort by, ascending: run, or any key of a metrics.json."""
    descending: bool = False
    """Sort the other way round."""
    columns: tuple[str, ...] = COLUMNS
    """Columns to show; `all` shows every key that any run has."""


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """All runs below a folder, each its metrics.json plus "run", its path below the folder.

    A run that is still training, or was cut short, has no metrics yet and is listed bare.
    """
    rows = []
    for config in sorted(folder.rglob("config.json")):
        row = {"run": config.parent.relative_to(folder).as_posix()}
        metrics = config.with_name("metrics.json")
        try:
            row |= (
                json.loads(metrics.read_text()) if metrics.exists() else {"status": "not finished"}
            )
        except ValueError:
            row |= {"status": "metrics.json is damaged"}
        rows.append(row)
    return rows


def sort_runs(rows: list[dict[str, Any]], column: str, *, descending: bool) -> list[dict[str, Any]]:
    """Rows sorted by a column; those that lack it come last either way.

    Raises:
        UserError: if no run has the column, with those that exist.
    """
    have = [row for row in rows if column in row]
    if not have:
        known = ", ".join(dict.fromkeys(key for row in rows for key in row))
        raise UserError(f"--sort: expected one of {known}; got {column!r}")
    numbers = all(isinstance(row[column], int | float) for row in have)
    have.sort(key=lambda row: row[column] if numbers else str(row[column]), reverse=descending)
    return have + [row for row in rows if column not in row]


def format_table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """The table as text: the run, then a right-aligned column for each key."""
    cells = [["run", *columns]]
    for row in rows:
        values = [row.get(c, "") for c in columns]
        cells.append(
            [row["run"], *(f"{v:.5g}" if isinstance(v, float) else str(v) for v in values)]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def main(table: Table) -> None:
    """Print the table."""
    rows = read_runs(table.folder)
    if not rows:
        raise UserError(f"no runs below {table.folder}: train one, e.g. make demo")
    rows = sort_runs(rows, table.sort, descending=table.descending)
    present = list(dict.fromkeys(key for row in rows for key in row if key != "run"))
    wanted = present if "all" in table.columns else [*table.columns, table.sort, "status"]
    print(format_table(rows, [c for c in dict.fromkeys(wanted) if c in present]))


if __name__ == "__main__":
    cli(main, Table)
