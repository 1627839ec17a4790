"""Every script as its reader runs it: a command line, a killed process, two processes."""

import ast
import importlib
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import code_examples
from code_examples import autoencoder, utils
from code_examples.utils import UserError
from code_examples.utils.__main__ import Table
from code_examples.utils.__main__ import main as table

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "code_examples").glob("0*.py"))
AUTOENCODER = SCRIPTS[0]
QUICK = ["--quick", "--dataset", "digits", "--latent-dim", "8"]


def command(*arguments, cwd=None, module=()):
    """Run Python with these arguments, strictly; return the finished process."""
    line = [sys.executable, "-W", "error", *module, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


def checkpoint(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def same(a, b):
    """Bitwise equality of nested checkpoints."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


LONGEST = {
    "02_gans": 620,  # seven losses, nine remedies, pictures and points: all asked for
    "04_diffusion_models": 865,  # three models, five samplers, two likelihoods, likewise
    "05_normalizing_flows": 1050,  # eight kinds of layer, each with its inverse and determinant
    "06_energy_based_models": 930,  # three models, six ways to train them, log Z three ways
    "07_pixelcnn": 1190,  # five networks, each drawing in two ways, two likelihoods, and sound
}


# --- Every script


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_the_banners_come_in_the_fixed_order(script):
    text = script.read_text()
    banners = re.findall(r"^# --- (.*?) -+$", text, flags=re.MULTILINE)
    assert banners == ["Model", "Objective", "Training and sampling", "Experiment"]
    for part in ("Shapes:", "Paper:", "Run:", "Expect:"):
        assert part in ast.get_docstring(ast.parse(text))
    assert "TODO" not in text
    assert len(text.splitlines()) <= LONGEST.get(script.stem, 480)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_help_lists_the_flags_that_all_scripts_share(script):
    shown = command(script, "--help")
    assert shown.returncode == 0
    shared = "model dataset data-root epochs minutes batch-size lr seed device precision"
    for flag in f"{shared} num-samples out resume quick".split():
        assert f"--{flag}" in shown.stdout


@pytest.mark.parametrize("name", code_examples._CHAPTERS)
def test_chapters_have_readable_names(name):
    chapter = getattr(code_examples, name)
    assert importlib.import_module(chapter.__name__) is chapter
    assert callable(chapter.main)


def test_an_unknown_chapter_names_the_choices():
    with pytest.raises(AttributeError, match=r"no chapter 'autoencoders'.*autoencoder"):
        _ = code_examples.autoencoders


def test_importing_does_nothing(tmp_path):
    """No arguments parsed, nothing on disk, no heavy library that only some functions need."""
    code = "import sys; sys.argv = ['x', '--nonsense']; from code_examples import autoencoder; "
    code += (
        "print([m for m in ('torchvision', 'matplotlib', 'sklearn', 'tyro') if m in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert shown.stdout.strip() == "[]", shown.stderr
    assert list(tmp_path.iterdir()) == []


# --- Wrong arguments: one line, exit code 2, nothing half-written


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Give the chapter's command line wrong flags, in this process; return what it prints."""

    def run(*flags):
        line = [str(AUTOENCODER), *flags, "--out", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", line)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            utils.cli(autoencoder.main, autoencoder.Config)
        assert ended.value.code == 2
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().err

    return run


def test_a_wrong_argument_ends_the_process_with_one_line(tmp_path):
    shown = command(AUTOENCODER, "--lr", "-1", "--out", tmp_path / "run", cwd=tmp_path)
    assert shown.returncode == 2
    assert shown.stderr == "error: --lr: expected a finite number above 0, got -1\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--dataset", "minst"], "mnist"),
        (["--dataset", "folder:nowhere"], "nowhere"),
        (["--lr", "-1"], "--lr: expected a finite number above 0, got -1"),
        (["--latent-dim", "0"], "--latent-dim: expected a finite number of at least 1, got 0"),
        (["--resume"], "nothing to resume"),
        (["--device", "warp"], "--device: expected auto"),
    ],
)
def test_wrong_arguments_get_one_line_and_leave_nothing(flags, said, refused):
    shown = refused(*flags)
    assert said in shown
    assert len(shown.strip().splitlines()) == 1


@pytest.mark.parametrize("flags", [["--model", "vae"], ["--epochs", "many"], ["--nonsense"]])
def test_what_cannot_be_parsed_is_explained(flags, refused):
    assert flags[-1].strip("-") in refused(*flags)


# --- Killed


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    """SIGKILL at three random moments of training, resumed each time; and an undisturbed run."""
    flags = {"model": "denoising", "dataset": "digits", "latent_dim": 4, "epochs": 20}
    flags |= {"batch_size": 64, "num_samples": 10}
    code = "from code_examples import autoencoder; from code_examples.utils import run; "
    code += "run.SAVE_SECONDS = 0.05; import sys, pathlib; "
    code += f"autoencoder.main(autoencoder.Config(**{flags}, out=pathlib.Path(sys.argv[1]), "
    code += "resume='resume' in sys.argv))"

    def start(folder, *words):
        line = [sys.executable, "-c", code, str(folder), *words]
        return subprocess.Popen(
            line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    autoencoder.main(autoencoder.Config(**flags, out=whole))
    seconds = json.loads((whole / "metrics.json").read_text())["training_seconds"]
    rng, steps, killed = random.Random(), [], []
    for attempt in range(3):
        process = start(cut, *(["resume"] if attempt else []))
        before = steps[-1] if steps else -1
        while process.poll() is None and (  # until this process has saved its first checkpoint
            not (cut / "checkpoint.pt").exists() or checkpoint(cut)["run"]["step"] <= before
        ):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, seconds / 6))
        process.kill()
        killed.append(process.wait())
        steps.append(checkpoint(cut)["run"]["step"])
    last = checkpoint(whole)["run"]["step"]
    assert -9 in killed, "no run was killed in time"
    assert any(0 < step < last for step in steps), steps
    autoencoder.main(autoencoder.Config(**flags, out=cut, resume=True))
    assert same(checkpoint(cut)["objects"], checkpoint(whole)["objects"])
    assert (cut / "samples.npy").read_bytes() == (whole / "samples.npy").read_bytes()


# --- Several processes


def test_two_processes_train_the_same_model_as_one(tmp_path):
    """torchrun shares each batch out; averaged gradients are those of the whole batch."""
    flags = {"dataset": "digits", "latent_dim": 4, "epochs": 2, "batch_size": 64}
    flags |= {"precision": "fp32", "num_samples": 10}
    autoencoder.main(autoencoder.Config(**flags, out=tmp_path / "one"))
    flags = [word for k, v in flags.items() for word in (f"--{k.replace('_', '-')}", v)]
    shown = command(
        *("--standalone", "--nproc-per-node", "2", AUTOENCODER, *flags, "--out", tmp_path / "two"),
        module=("-m", "torch.distributed.run"),
    )
    assert shown.returncode == 0, shown.stderr
    one, two = (checkpoint(tmp_path / name) for name in ("one", "two"))
    assert one["run"]["step"] == two["run"]["step"] > 20
    for name, weight in one["objects"]["model"].items():
        torch.testing.assert_close(two["objects"]["model"][name], weight, atol=1e-4, rtol=1e-3)
    losses = [[row["loss"] for row in c["run"]["rows"]] for c in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


# --- The table of all runs


def test_the_table_sorts_runs_and_lists_those_that_did_not_finish(tmp_path, capsys):
    for name, metrics in {"a": {"loss": 2.0}, "b": {"loss": 1.0}, "c": None}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        if metrics:
            (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    for flags, order in (
        ({}, "abc"),
        ({"sort": "loss"}, "bac"),
        ({"sort": "loss", "descending": True}, "abc"),
    ):
        table(Table(folder=tmp_path, **flags))
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[1:]] == list(order)
    assert "not finished" in lines[-1]
    with pytest.raises(UserError, match="--sort: expected one of run, loss, status; got 'los'"):
        table(Table(folder=tmp_path, sort="los"))
    with pytest.raises(UserError, match="no runs below"):
        table(Table(folder=tmp_path / "a" / "nothing"))
