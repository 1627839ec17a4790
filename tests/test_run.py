"""The run: clock, schedule, history, checkpoints, and what happens when one is cut short."""

import csv
import json
import math
import os
import signal
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from scipy.io import wavfile

from code_examples import utils
from code_examples.utils import files
from code_examples.utils import run as run_module


@dataclass(frozen=True)
class Config(utils.Config):
    """A toy script's flags."""

    model: Literal["line", "noisy"] = "line"
    """Which toy."""


def data(n=64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator)
    return x, x @ torch.tensor([[1.0], [2.0], [3.0]])


def train(config, *, stop_at=None, spoil_at=None):
    """A whole script in ten lines: regress y on x, with noise from the step's random stream."""
    run = utils.start(config, "toy.py")
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    run.keep(model=model, optimizer=optimizer)
    seen = []
    for x, y in run.batches(*data()):
        optimizer.param_groups[0]["lr"] = run.cosine(config.lr)
        loss = (model(x + 0.1 * torch.randn_like(x)) - y).square().mean()
        if run.step == spoil_at:
            loss = loss * math.nan
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
        seen.append((run.step, x, run.progress))
        if run.time_to_look():
            run.show(torch.zeros(1, 1, 4, 4))
        if run.step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
    return run, model, seen


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# --- Batches, clock and schedule


def test_an_epoch_shows_every_example_once_and_each_epoch_in_another_order(tmp_path):
    _, _, seen = train(Config(epochs=2, batch_size=16, out=tmp_path))
    epochs = [torch.cat([x for _, x, _ in seen[i : i + 4]]) for i in (0, 4)]
    for x in epochs:
        torch.testing.assert_close(x.sort(dim=0).values, data()[0].sort(dim=0).values)
    assert not torch.equal(*epochs)


def test_the_seed_decides_everything(tmp_path):
    results = [
        weights(train(Config(epochs=2, batch_size=16, seed=seed, out=tmp_path))[1])
        for seed in (1, 1, 2)
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_another_seed_is_another_order_and_other_noise(tmp_path):
    """Not only other weights: torch's generator on a CPU ignores a seed's upper 32 bits."""
    first, noise = [], []
    for seed in (0, 1):
        _, _, seen = train(Config(epochs=1, batch_size=16, seed=seed, out=tmp_path / str(seed)))
        first.append(seen[0][1])
        noise.append(torch.randn(3))  # drawn after training: evaluation's stream
    assert not torch.equal(*first)
    assert not torch.equal(*noise)


def test_streams_do_not_collide():
    streams = {
        run_module.stream(seed, purpose, index)
        for seed in range(5)
        for purpose in range(4)
        for index in range(500)
    }
    assert len(streams) == 5 * 4 * 500
    assert all(0 <= s < 2**32 for s in streams)


def test_a_batch_larger_than_the_data_is_the_data(tmp_path):
    run, _, seen = train(Config(epochs=3, batch_size=1000, out=tmp_path))
    assert [len(x) for _, x, _ in seen] == [64, 64, 64]
    assert run.epochs_done == 3


def test_minutes_end_the_training_and_the_schedule_at_their_time(tmp_path, monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(run_module.time, "perf_counter", lambda: clock["now"])
    run = utils.start(Config(minutes=1, out=tmp_path, batch_size=16), "toy.py")
    run.keep()
    rates = []
    for _ in run.batches(*data()):
        rates.append(run.cosine(1.0))
        clock["now"] += 0.5  # a step of half a second: 120 of them
    assert len(rates) == 120
    assert run.seconds == 60
    assert run.progress == 1
    assert rates[60] == pytest.approx(0.515, abs=0.01)  # half-way by the clock
    assert rates[-1] < 0.001


def test_minutes_resume_with_the_time_that_was_left(tmp_path, monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(run_module.time, "perf_counter", lambda: clock["now"])
    steps = []
    for resume in (False, True):
        run = utils.start(Config(minutes=1, out=tmp_path, resume=resume), "toy.py")
        run.keep()
        steps.append(0)
        for _ in run.batches(*data()):
            steps[-1] += 1
            clock["now"] += 1
            if not resume and steps[-1] == 40:
                run._interrupted = True
                break
        if not resume:
            run._stop_clock()
            run.step += 1
            run._save()
    assert steps == [40, 20]


def test_the_learning_rate_warms_up_and_ends_at_zero(tmp_path):
    run = utils.start(Config(out=tmp_path), "toy.py")
    rates = []
    for run.progress in (0.0, 0.01, 0.02, 0.51, 1.0):
        rates.append(run.cosine(0.1))
    assert 0 < rates[0] < rates[1] < rates[2] == pytest.approx(0.1)
    assert rates[3] == pytest.approx(0.05)
    assert rates[4] == pytest.approx(0)


def test_the_trapezoid_warms_up_stays_flat_and_falls_in_a_line(tmp_path):
    run, rates = utils.start(Config(out=tmp_path), "toy.py"), []
    for progress in (0.0, 0.01, 0.02, 0.5, 0.7, 0.85, 1.0):
        run.progress = progress
        rates.append(run.trapezoid(0.1))
    assert 0 < rates[0] < rates[1] < rates[2] == rates[3] == pytest.approx(0.1)
    assert rates[4:] == pytest.approx([0.1, 0.05, 0.0])


def test_looks_are_24_and_do_not_count_as_training_time(tmp_path, monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(run_module.time, "perf_counter", lambda: clock["now"])
    run = utils.start(Config(epochs=100, batch_size=64, out=tmp_path), "toy.py")
    run.keep()
    looks = []
    for _ in run.batches(*data()):
        clock["now"] += 1  # the step
        if run.time_to_look():
            looks.append(run.step)
            clock["now"] += 1000  # the look
    assert run.seconds == 100
    assert len(looks) == run_module.LOOKS
    assert looks[0] == 0
    assert looks[-1] >= 97


# --- What is written


def test_history_holds_the_means_of_ten_steps(tmp_path):
    run, _, _ = train(Config(epochs=5, batch_size=16, out=tmp_path))
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [10, 20]
    assert [float(row["epoch"]) for row in rows] == [2.5, 5.0]
    assert run.series("loss")[0] == [2.5, 5.0]
    run = utils.start(Config(epochs=10, batch_size=64, out=tmp_path), "toy.py")
    run.keep()
    for _ in run.batches(*data()):
        run.log(step_squared=float(run.step**2))
    assert run.series("step_squared")[1] == pytest.approx([sum(s**2 for s in range(10)) / 10])


def test_metrics_are_flat_json_with_the_runs_own_numbers(tmp_path, capsys):
    run, model, _ = train(Config(epochs=5, batch_size=16, out=tmp_path))
    run.finish(answer=42.0, precision=0.5)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["answer"] == 42
    assert metrics["precision"] == 0.5
    assert metrics["images_seen"] == 5 * 64
    assert metrics["epochs"] == 5
    assert metrics["parameters"] == weights(model).numel()
    assert not any(isinstance(v, dict | list) for v in metrics.values())
    assert "training.gif" in capsys.readouterr().out


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomically(path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(utils.UserError, match=r"cannot write .*No space left.*another --out"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_an_old_runs_metrics_do_not_survive_into_a_new_run(tmp_path):
    run, _, _ = train(Config(epochs=1, out=tmp_path))
    run.finish()
    (tmp_path / "latent_plane.png").write_bytes(b"of the old run")
    utils.start(Config(epochs=1, out=tmp_path), "toy.py").keep()
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_an_unfinished_runs_checkpoint_is_put_aside_not_deleted(tmp_path, capsys):
    train(Config(epochs=1, out=tmp_path))
    old = (tmp_path / "checkpoint.pt").read_bytes()
    train(Config(epochs=1, out=tmp_path))
    assert "checkpoint.old.pt" in capsys.readouterr().err
    assert (tmp_path / "checkpoint.old.pt").read_bytes() == old


def test_a_sound_is_written_as_it_is_heard(tmp_path, capsys):
    """16 bits, at its rate; what is too loud is cut, not wrapped round."""
    run, _, _ = train(Config(epochs=1, out=tmp_path))
    sound = torch.tensor([0.0, 0.25, -0.5, 1.0, -1.0, 1.7, -3.0, 1e-5, 2e-5]).requires_grad_()
    run.save_sound("tone.wav", sound, 8000)
    rate, read = wavfile.read(tmp_path / "tone.wav")
    assert rate == 8000
    assert str(read.dtype) == "int16"
    assert read.tolist() == [0, 8192, -16384, 32767, -32767, 32767, -32767, 0, 1]
    run.save_sound("high.wav", torch.linspace(-1, 1, 5000).double(), 44_100)
    rate, read = wavfile.read(tmp_path / "high.wav")
    assert (rate, read.shape) == (44_100, (5000,))
    error = torch.from_numpy(read / 32767) - torch.linspace(-1, 1, 5000)
    assert error.abs().max() <= 0.5 / 32767 + 1e-6
    capsys.readouterr()
    run.finish()
    shown = capsys.readouterr().out
    assert "Pictures and sounds in" in shown
    assert "high.wav, tone.wav" in shown
    utils.start(Config(epochs=1, out=tmp_path), "toy.py").keep()
    assert not list(tmp_path.glob("*.wav"))  # of an earlier run


# --- Cut short


@pytest.mark.parametrize("stop_at", [0, 7, 13, 39])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, stop_at, capsys):
    flags = {"epochs": 10, "batch_size": 16}
    whole, expected, _ = train(Config(**flags, out=tmp_path / "whole"))
    with pytest.raises(SystemExit):
        train(Config(**flags, out=tmp_path / "cut"), stop_at=stop_at)
    assert "--resume" in capsys.readouterr().err
    run, model, seen = train(Config(**flags, out=tmp_path / "cut", resume=True))
    assert torch.equal(weights(model), weights(expected))
    assert seen[0][0] == stop_at + 1 if stop_at < 39 else not seen
    assert run.series("loss") == whole.series("loss")
    assert len(run.frames) == len(whole.frames)


def test_a_resumed_run_that_had_finished_trains_no_more_and_draws_the_same(tmp_path):
    _, model, _ = train(Config(epochs=2, out=tmp_path))
    drawn = torch.randn(3)
    _, again, seen = train(Config(epochs=2, out=tmp_path, resume=True))
    assert seen == []
    assert torch.equal(weights(model), weights(again))
    assert torch.equal(torch.randn(3), drawn)


def test_a_loss_that_is_not_finite_stops_with_advice_and_keeps_the_last_good_checkpoint(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(run_module, "SAVE_SECONDS", -1)  # save at every step
    with pytest.raises(utils.UserError, match=r"became nan at step 22.*--lr.*last good"):
        train(Config(epochs=20, batch_size=16, out=tmp_path), spoil_at=21)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["run"]["step"] == 21
    assert all(v.isfinite().all() for v in state["objects"]["model"].values())
    monkeypatch.setattr(run_module, "SAVE_SECONDS", 1000)
    with pytest.raises(utils.UserError, match=r"loss became nan at step 30"):
        train(Config(epochs=20, batch_size=16, out=tmp_path), spoil_at=21)


def test_resume_refuses_what_it_cannot_continue(tmp_path):
    with pytest.raises(utils.UserError, match=r"nothing to resume in .*run without --resume"):
        train(Config(resume=True, out=tmp_path))
    train(Config(epochs=2, out=tmp_path))
    with pytest.raises(utils.UserError, match=r"has --epochs 2, not 3: give the same flags"):
        train(Config(epochs=3, resume=True, out=tmp_path))
    train(Config(epochs=2, num_samples=77, resume=True, out=tmp_path))  # free to change
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    for damage in (whole[:-100], whole[: len(whole) // 2], b"", b"not a checkpoint"):
        path.write_bytes(damage)
        with pytest.raises(utils.UserError, match=r"checkpoint.pt is damaged .*delete it"):
            train(Config(epochs=2, resume=True, out=tmp_path))
    path.write_bytes(whole)
    run = utils.start(Config(epochs=2, resume=True, out=tmp_path), "toy.py")
    run.keep()
    with pytest.raises(utils.UserError, match=r"trained on 64 examples, the data now has 10"):
        next(run.batches(torch.zeros(10, 3)))
    with pytest.raises(utils.UserError, match=r"another version of toy.py or for other data"):
        utils.start(Config(epochs=2, resume=True, out=tmp_path), "toy.py").keep(
            model=torch.nn.Linear(4, 1)
        )
    torch.save({"some": "other file"}, path)
    with pytest.raises(utils.UserError, match="damaged"):
        train(Config(epochs=2, resume=True, out=tmp_path))


# --- Machine


def test_devices_that_are_not_here_are_refused():
    with pytest.raises(utils.UserError, match="expected auto, cpu, cuda"):
        run_module.choose_device("tpu")
    with pytest.raises(utils.UserError, match="expected auto, cpu, cuda"):
        run_module.choose_device("cpu:x")
    if not torch.cuda.is_available():
        with pytest.raises(utils.UserError, match="no cuda:0: use --device auto or cpu"):
            run_module.choose_device("cuda")
    assert run_module.choose_device("cpu").type == "cpu"


def test_precision_decides_what_autocast_computes_in(tmp_path):
    x = torch.randn(4, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        run = utils.start(Config(precision=precision, device="cpu", out=tmp_path), "toy.py")
        with run.autocast():
            assert (x @ x).dtype == dtype


def test_an_output_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(utils.UserError, match=r"--out: cannot write to .*file is a file"):
        utils.start(Config(out=tmp_path / "file" / "run"), "toy.py")
    with pytest.raises(utils.UserError, match=r"expected a new folder or an earlier run's"):
        utils.start(Config(out=tmp_path), "toy.py")
    utils.start(Config(out=tmp_path / "new" / "run"), "toy.py")
    assert not (tmp_path / "new").exists()  # looking leaves no trace


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"lr": -1.0}, "--lr: expected a finite number above 0, got -1"),
        ({"lr": math.nan}, "--lr: expected a finite number above 0, got nan"),
        ({"lr": math.inf}, "--lr: .*got inf"),
        ({"batch_size": 0}, "--batch-size: expected a finite number of at least 1, got 0"),
        ({"epochs": 0}, "--epochs: "),
        ({"minutes": 0.0}, "--minutes: expected a finite number above 0"),
        ({"seed": -1}, "--seed: "),
        ({"num_samples": 1}, "--num-samples: expected a finite number of at least 10"),
        ({"model": "curve"}, "--model: expected one of line, noisy; got 'curve'"),
        ({"precision": "fp16"}, "--precision: expected one of auto, fp32, bf16; got 'fp16'"),
    ],
)
def test_wrong_values_are_refused_with_flag_expectation_and_value(flags, message):
    with pytest.raises(utils.UserError, match=message):
        Config(**flags)
