"""A run: its flags, device, clock, progress bar, history, checkpoints and folder.

A script says `run = utils.start(config, __file__)` and loops over `run.batches(images)`. Everything
random in a step is a function of (seed, step), so a run that was killed and resumed ends with the
same weights, bit for bit on a CPU, as one that was left alone.
"""

import atexit
import csv
import io
import json
import math
import os
import random
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from . import pictures, plotting
from .errors import UserError
from .files import check_run_folder, holds_run, write_atomically
from .flags import ROOT, Config
from .machine import bf16_is_fast, choose_device

LOG_EVERY = 10  # steps averaged into one row of history.csv; also how often a loss is checked
SAVE_SECONDS = 20  # between two checkpoints during training
LOOKS = 24  # how often `time_to_look` says yes: the frames of training.gif
INITIAL, EPOCH, STEP, EVALUATION = range(4)  # random streams of a run, see `stream`
FREE_TO_CHANGE = {"out", "resume", "data_root", "device", "num_samples"}  # under --resume


def stream(seed: int, purpose: int, index: int = 0) -> int:
    """A seed for torch, in [0, 2^32): other streams for each run seed, purpose and index.

    Hashed, because torch's generator on the CPU looks at 32 bits only and neighbours would overlap.
    """
    return int(np.random.SeedSequence((seed, purpose, index)).generate_state(1)[0])


def _plain(value: Any) -> Any:
    """A metric as it stands in metrics.json: six digits are enough, and JSON knows no infinity."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


class Run:
    """What `start` returns: the machine, the clock and the folder of one training run.

    Attributes:
        config: The flags.
        device: Where the model and the batches live.
        bf16: Whether `autocast` computes in bfloat16.
        folder: Where everything is written.
        rank: This process's number under torchrun; 0 writes, prints and evaluates.
        step: Optimiser steps done.
        progress: How much of the training is over, in [0, 1].
        seconds: Training time so far: the loop's, without looks, checkpoints and evaluation.
    """

    def __init__(self, config: Config, script: str) -> None:
        self.config = config
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device = choose_device(config.device)
        fast = bf16_is_fast(self.device)
        self.bf16 = config.precision == "bf16" or (config.precision == "auto" and fast)
        self.script = Path(script).stem
        dataset = re.sub(r"[^\w.@-]+", "-", config.dataset)[-80:]
        name = f"{getattr(config, 'model', 'model')}-{dataset}"
        self.folder = Path(config.out or ROOT / "outputs" / self.script / name).expanduser()
        self.step, self.progress, self.seconds, self.looks = 0, 0.0, 0.0, 0
        self.images_seen, self.epochs_done, self.num_examples = 0, 0.0, 0
        self.rows: list[dict[str, float]] = []
        self.frames: list[Tensor] = []
        self.labels: list[str] = []
        self._objects: dict[str, Any] = {}
        self.pending: list[dict[str, Tensor]] = []
        self._interrupted = False
        self._clock = 0.0

    # what a script asks of it

    def autocast(self) -> torch.autocast:
        """Context in which matrix products and convolutions run in bfloat16 where that is fast."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def data_parallel(self, model: nn.Module) -> nn.Module:
        """Return the model, wrapped under torchrun so that calling it averages gradients.

        The loss must then *call* what this returns; methods such as `encode` stay on the model.
        Several processes train the model of one if the loss is a mean over images; random draws,
        and what is nonlinear in a batch's mean, each process makes of its own share.
        """
        if self.world_size == 1:
            return model
        return nn.parallel.DistributedDataParallel(model)

    def keep(self, **objects: Any) -> None:
        """Name what a checkpoint must hold (models, optimisers); under --resume, restore it.

        Raises:
            UserError: under --resume, if there is nothing to resume, the checkpoint is damaged, or
                it was made with other flags.
        """
        self._objects = objects
        if self.config.resume:
            self._restore()
        elif self.rank == 0:
            self._clear()
            flags = {"script": self.script, **self._flags()}
            self._write("config.json", json.dumps(flags, indent=2).encode())

    def batches(self, x: Tensor, y: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shuffled batches (x, y) until the epochs or the minutes are over.

        Draws the progress bar, keeps the clock, saves every 20 s (SAVE_SECONDS) and on Ctrl-C, and
        at the end writes history.csv and training.gif. The last, incomplete batch of an epoch is
        left out: the next epoch shuffles anew. Under torchrun each process gets its share of every
        batch.

        Args:
            x: (N, ...) training data.
            y: (N,) labels; zeros when not given.

        Raises:
            UserError: if a logged loss or a weight is not finite, a batch cannot be shared out
                equally, or the data is not what a resumed run was trained on.
        """
        y = torch.zeros(len(x), dtype=torch.long) if y is None else y
        x, y = x.to(self.device), y.to(self.device)
        size = min(self.config.batch_size, len(x)) // self.world_size * self.world_size
        if size == 0 or (self.world_size > 1 and size != self.config.batch_size):
            raise UserError(
                f"--batch-size: expected a multiple of the {self.world_size} processes and at most "
                f"{len(x)} images, got {self.config.batch_size}"
            )
        if self.num_examples not in (0, len(x)):
            raise UserError(
                f"--resume: the run in {self.folder} was trained on {self.num_examples} examples, "
                f"the data now has {len(x)}: give the same data, or another --out for a new run"
            )
        self.num_examples, per_epoch = len(x), len(x) // size
        order, last_save, seed = None, time.monotonic(), self.config.seed
        over = self._is_over(per_epoch)
        self._save()
        with self._bar() as bar, self._stop_on_signal():
            while not over:
                epoch, position = divmod(self.step, per_epoch)
                if order is None or position == 0:
                    order = self._permutation(len(x), epoch)
                index = order[position * size : (position + 1) * size][self.rank :: self.world_size]
                torch.manual_seed(stream(seed, STEP, self.step * self.world_size + self.rank))
                self._clock = time.perf_counter()
                yield x[index], y[index]
                self.step += 1
                self.epochs_done, self.images_seen = self.step / per_epoch, self.step * size
                if self.step % LOG_EVERY == 0:
                    self._flush(bar)  # waits for a GPU, so the clock runs until here
                self._stop_clock()
                if self._should_leave():
                    self._leave()
                if time.monotonic() - last_save > SAVE_SECONDS:
                    self._save()
                    last_save = time.monotonic()
                over = self._is_over(per_epoch)
            self._flush(bar)
            bar.update(1 - bar.n)
        self._end_training()

    def cosine(self, peak: float, *, warmup: float = 0.02) -> float:
        """The learning rate now: up to `peak` over the first `warmup`, then half a cosine to 0."""
        if self.progress < warmup:
            return peak * (self.progress / warmup + 1e-3)
        return peak * 0.5 * (1 + math.cos(math.pi * (self.progress - warmup) / (1 - warmup)))

    def trapezoid(self, peak: float, *, warmup: float = 0.02, decay: float = 0.3) -> float:
        """The learning rate now: up to `peak`, flat, and a straight line to 0 over the last part.

        More steps are large ones than under `cosine`: good where time ends before learning does.
        """
        return peak * min(1.0, self.progress / warmup + 1e-3, (1 - self.progress) / decay)

    def log(self, **values: Tensor | float) -> None:
        """Add numbers of this step to the history; every 10 steps are averaged into one row.

        Log what every step has first, and what only a look has after it: under torchrun the
        former are averaged over the processes, the latter are the first one's own.
        """
        self.pending.append({k: torch.as_tensor(v).detach() for k, v in values.items()})

    def time_to_look(self) -> bool:
        """True some 24 times a run, closer together at its start; then the clock stands still.

        Until the next batch, `show` and evaluation do not count as training time.
        """
        if self.rank or self.progress < 0.98 * (self.looks / (LOOKS - 1)) ** 2:
            return False
        self.looks += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # steps under way are training, not looking
        self._stop_clock()
        return True

    def show(self, images: Tensor) -> None:
        """Keep images (N, C, H, W) in [0, 1] as the next frame of training.gif."""
        self.frames.append((images.detach().float().clamp(0, 1) * 255).round().byte().cpu())
        self.labels.append(f"epoch {self.epochs_done:.{int(self.epochs_done < 10)}f}")

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """A logged quantity over time: (epochs, values), ready for `plotting.curves`."""
        rows = [row for row in self.rows if name in row]
        return [row["epoch"] for row in rows], [row[name] for row in rows]

    def draw_history(
        self,
        *names: str,
        ylabel: str,
        title: str = "",
        picture: str = "learning_curve.png",
        **style,
    ) -> Path:
        """Draw logged quantities over the epochs; those that were never logged are left out."""
        logged = {name: self.series(name) for name in names}
        shown = {name: xy for name, xy in logged.items() if xy[0]}
        path = self.path(picture)
        return plotting.curves(shown, path, xlabel="epoch", ylabel=ylabel, title=title, **style)

    def draw_histories(
        self, panels: Mapping[str, Sequence[str]], *, picture: str = "learning_curve.png", **style
    ) -> Path:
        """Draw logged quantities in panels: the label of each y axis, to names of quantities."""
        logged = {
            label: {name: self.series(name) for name in names if self.series(name)[0]}
            for label, names in panels.items()
        }
        shown = {label: curves for label, curves in logged.items() if curves}
        return plotting.curve_panels(shown, self.path(picture), xlabel="epoch", **style)

    def path(self, name: str) -> Path:
        """Path of a file in the run's folder."""
        return self.folder / name

    def save_samples(self, samples: Tensor, *, title: str) -> None:
        """Write samples.npy, float32 (N, C, H, W) in [0, 1], and the first 64 as samples.png."""
        self.save_points(samples)
        pictures.image_grid(samples[:64], self.path("samples.png"), columns=8, title=title)

    def save_points(self, samples: Tensor) -> None:
        """Write samples.npy only, float32, such as (N, 2) points in the plane."""
        buffer = io.BytesIO()
        np.save(buffer, samples.detach().float().cpu().numpy())
        self._write("samples.npy", buffer.getvalue())

    def save_sound(self, name: str, sound: Tensor, rate: int) -> None:
        """Write sound (T,) in [-1, 1] as a .wav file of 16 bits, `rate` samples a second."""
        from scipy.io import wavfile

        buffer, loud = io.BytesIO(), sound.detach().float().cpu().clamp(-1, 1)
        wavfile.write(buffer, rate, (32767 * loud).round().short().numpy())
        self._write(name, buffer.getvalue())

    def finish(self, **metrics: float | str) -> None:
        """Write metrics.json (flat; the run's own numbers first), print it and name the pictures.

        Raises:
            UserError: if the folder cannot be written.
        """
        models = [o for k, o in self._objects.items() if isinstance(o, nn.Module) and k != "ema"]
        own = {
            "training_seconds": round(self.seconds, 1),
            "epochs": round(self.epochs_done, 2),
            "images_seen": self.images_seen,
            "parameters": sum(p.numel() for m in models for p in m.parameters()),
            "device": str(self.device),
            "autocast": "bf16" if self.bf16 else "off",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        metrics = {name: _plain(value) for name, value in (own | metrics).items()}
        self._write("metrics.json", json.dumps(metrics, indent=2).encode())
        width = max(map(len, metrics))
        print("\n".join(f"{k:<{width}}  {v}" for k, v in metrics.items()))
        made = sorted(p.name for p in self.folder.iterdir() if p.suffix in (".png", ".gif", ".wav"))
        sound = " and sounds" if any(name.endswith(".wav") for name in made) else ""
        print(f"\nPictures{sound} in {self.folder}: {', '.join(made)}")

    # how it does it

    def _clear(self) -> None:
        """Remove an earlier run's results, so that they are not taken for this one's."""
        if not holds_run(self.folder):
            return
        checkpoint = self.path("checkpoint.pt")
        if checkpoint.exists() and not self.path("metrics.json").exists():
            checkpoint.replace(self.path("checkpoint.old.pt"))
            print(
                f"an unfinished run was here: its checkpoint is now {checkpoint.stem}.old.pt "
                "(--resume would have gone on with it)",
                file=sys.stderr,
            )
        for pattern in (
            "metrics.json",
            "history.csv",
            "samples.npy",
            "checkpoint.pt",
            "*.png",
            "*.gif",
            "*.wav",
        ):
            for stale in self.folder.glob(pattern):
                stale.unlink(missing_ok=True)

    def _is_over(self, per_epoch: int) -> bool:
        if self.config.minutes is None:
            self.progress = self.step / (self.config.epochs * per_epoch)
        else:
            self.progress = min(1.0, self.seconds / (60 * self.config.minutes))
        if self.world_size > 1 and self.config.minutes is not None:  # one clock for all
            shared = torch.tensor(self.progress, dtype=torch.float64, device=self.device)
            dist.broadcast(shared, src=0)
            self.progress = shared.item()
        return self.progress >= 1

    def _permutation(self, n: int, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(stream(self.config.seed, EPOCH, epoch))
        return torch.randperm(n, generator=generator).to(self.device)

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self.seconds += max(0.0, now - self._clock)
        self._clock = math.inf

    def _flush(self, bar: tqdm) -> None:
        """Average the pending values into a row of the history and check that they are finite."""
        if self.pending:
            shared = list(self.pending[0])  # what every process logs; looks are the first one's own
            names = [*shared, *sorted({k for row in self.pending for k in row} - {*shared})]
            means = [
                torch.stack([row[k].float().mean() for row in self.pending if k in row]).mean()
                for k in names
            ]
            values = torch.stack([mean.to(self.device) for mean in means])
            if self.world_size > 1:
                dist.all_reduce(values[: len(shared)])
                values[: len(shared)] /= self.world_size
            row = dict(zip(names, values.tolist(), strict=True))
            self.pending = []
            self._check_finite(row)
            head = {"step": self.step, "epoch": self.epochs_done, "seconds": round(self.seconds, 3)}
            self.rows.append(head | row)
            bar.set_postfix_str(", ".join(f"{k} {v:.4g}" for k, v in row.items()), refresh=False)
        bar.update(self.progress - bar.n)

    def _check_finite(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            if not math.isfinite(value):
                self._advise(name, value)

    def _advise(self, name: str, value: float) -> None:
        raise UserError(
            f"{name} became {value} at step {self.step}: try a lower --lr (now "
            f"{self.config.lr:g}) or --precision fp32; the last good checkpoint is kept in "
            f"{self.path('checkpoint.pt')}"
        )

    def _flags(self) -> dict[str, Any]:
        plain = {f.name: getattr(self.config, f.name) for f in fields(self.config)}
        return {k: str(v) if isinstance(v, Path) else v for k, v in plain.items()}

    def _write(self, name: str, content: bytes) -> None:
        write_atomically(self.path(name), content)

    def _save(self) -> None:
        if self.rank:
            return
        models = [o for o in self._objects.values() if isinstance(o, nn.Module)]
        if not all(p.isfinite().all() for m in models for p in m.parameters()):
            self._advise("a weight", math.nan)  # the last good checkpoint must survive
        own = ("step", "seconds", "looks", "images_seen", "epochs_done", "num_examples")
        own += ("rows", "pending", "frames", "labels")
        state = {
            "flags": self._flags(),
            "run": {name: getattr(self, name) for name in own},
            "objects": {name: o.state_dict() for name, o in self._objects.items()},
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._write("checkpoint.pt", buffer.getvalue())

    def _restore(self) -> None:
        path = self.path("checkpoint.pt")
        if not path.exists():
            raise UserError(
                f"--resume: nothing to resume in {self.folder}: run without --resume first"
            )
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            flags, own, objects = state["flags"], state["run"], state["objects"]
        except Exception as error:  # noqa: BLE001  a damaged file raises whatever its bytes happen to mean
            raise UserError(
                f"--resume: {path} is damaged ({type(error).__name__}): delete it and start again"
            ) from None
        for name, value in self._flags().items():
            if name not in FREE_TO_CHANGE and flags.get(name) != value:
                flag = name.replace("_", "-")
                raise UserError(
                    f"--resume: the run in {self.folder} has --{flag} {flags.get(name)}, not "
                    f"{value}: give the same flags, or another --out for a new run"
                )
        try:
            for name, o in self._objects.items():
                o.load_state_dict(objects[name])
        except (KeyError, RuntimeError, ValueError):
            raise UserError(
                f"--resume: {path} was written by another version of {self.script}.py or for other "
                "data: delete it and start again"
            ) from None
        for name, value in own.items():
            setattr(self, name, value)

    def _end_training(self) -> None:
        """Save everything, and give evaluation a random stream of its own: same after a resume."""
        self._save()
        torch.manual_seed(stream(self.config.seed, EVALUATION))
        if self.rank:
            return
        names = list(dict.fromkeys(k for row in self.rows for k in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        self._write("history.csv", table.getvalue().encode())
        if self.frames:
            frames = [frame.float() / 255 for frame in self.frames]
            pictures.animation(frames, self.path("training.gif"), labels=self.labels)

    def _should_leave(self) -> bool:
        """Whether a signal came; several processes agree on it, so that none waits for another."""
        if self.world_size == 1:
            return self._interrupted
        if self.step % LOG_EVERY:
            return False
        flag = torch.tensor(float(self._interrupted), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def _leave(self) -> None:
        self._save()
        if self.rank == 0:
            again = "the same command with --resume"
            if self.world_size == 1 and Path(sys.argv[0]).stem == self.script:
                again = shlex.join([sys.executable, *sys.argv])
                again += "" if self.config.resume else " --resume"
            print(f"\nstopped at step {self.step}; saved. Go on with: {again}", file=sys.stderr)
        raise SystemExit(130)

    def _bar(self) -> tqdm:
        return tqdm(
            total=1.0,
            initial=self.progress,
            desc=self.script,
            bar_format="{desc} {percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}",
            mininterval=0.2 if sys.stderr.isatty() else 10,
            miniters=0,
            disable=self.rank > 0,
        )

    @contextmanager
    def _stop_on_signal(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a stop between two steps, where the state is whole."""

        def note(signum: int, frame: Any) -> None:
            if self._interrupted and self.world_size == 1:  # a second Ctrl-C means it
                raise KeyboardInterrupt
            self._interrupted = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for s, handler in old.items():
                signal.signal(s, handler)


def start(config: Config, script: str) -> Run:
    """Set up a run: check the flags against this machine, seed everything, join other processes.

    Writes nothing yet: the folder appears with the first file.

    Args:
        config: The flags.
        script: `__file__` of the script; names the folder under outputs/.

    Raises:
        UserError: if the device is missing or the folder cannot be written.
    """
    run = Run(config, script)
    check_run_folder(run.folder)
    if run.world_size > 1 and not dist.is_initialized():
        if run.device.type == "cuda":
            torch.cuda.set_device(run.device)
        dist.init_process_group("nccl" if run.device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(stream(config.seed, INITIAL))
    return run
