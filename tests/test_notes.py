"""The small scripts beside the notes' pictures still run and draw them."""

import importlib
from pathlib import Path

import pytest

FIGURES = Path(__file__).resolve().parents[1] / "notes" / "figures"
SMALL = {
    "autoencoder_compression": {"sizes": (2,), "seeds": 1},
    "autoencoder_gallery": {"seeds": 2},
}


@pytest.mark.parametrize("name", sorted(p.stem for p in FIGURES.glob("*.py")))
def test_every_figure_script_draws_what_it_names(name, tmp_path):
    module = importlib.import_module(f"notes.figures.{name}")
    flags = {"epochs": 1, "quick": True, "out": tmp_path / "runs", "figures": tmp_path / "figures"}
    module.main(module.Config(**flags, **SMALL.get(name, {})))
    drawn = {p.name for p in (tmp_path / "figures").iterdir()}
    kept = {p.name for p in FIGURES.iterdir() if p.suffix in (".png", ".gif")}
    assert drawn
    assert drawn <= kept, "run the script and keep its pictures beside it"
