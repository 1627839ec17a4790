"""The flags that all scripts share, and how a script's command line is run."""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from .errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Config:
    """The flags that every script has; a script's own Config adds to them.

    Raises:
        UserError: if a value cannot be used, with the flag's name and what it may be.
    """

    dataset: str = "mnist5k"
    """Images: mnist5k (embedded), mnist, fashion-mnist, kmnist, cifar10, svhn, digits, shapes, or
    folder:PATH for your own."""
    data_root: Path = ROOT / "data"
    """Where data sets are downloaded to on first use."""
    epochs: int = 20
    """Passes over the training set."""
    minutes: float | None = None
    """Train for this many minutes instead of --epochs; the schedule ends when the time does."""
    batch_size: int = 128
    """Images a step, over all processes together."""
    lr: float = 1e-3
    """Peak learning rate; it warms up over the first 2% and follows half a cosine down to 0."""
    seed: int = 0
    """Seed of everything random. The split of the data does not depend on it."""
    device: str = "auto"
    """auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bfloat16 where this machine is fast at it. Weights and evaluation stay float32."""
    num_samples: int = 2000
    """Samples drawn at the end, for samples.npy and the metrics."""
    out: Path | None = None
    """The run's folder; outputs/SCRIPT/MODEL-DATASET when not given."""
    resume: bool = False
    """Go on where a run in the same folder was interrupted; needs the same flags."""
    quick: bool = False
    """Seconds, not minutes: at most 512 training images, batches of 32, 10 epochs, 256 samples."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name)
            kinds = [h for h in (hint, *get_args(hint)) if get_origin(h) is Literal]  # or None
            choices = [choice for kind in kinds for choice in get_args(kind)]
            if choices and value is not None and value not in choices:
                named = ", ".join(map(str, choices))
                raise UserError(f"--{name}: expected one of {named}; got {value!r}")
        check_number("seed", self.seed, at_least=0, below=2**32)
        check_number("epochs", self.epochs, at_least=1)
        check_number("batch_size", self.batch_size, at_least=1)
        check_number("num_samples", self.num_samples, at_least=10)  # fewer have no metrics
        check_number("lr", self.lr, above=0)
        if self.minutes is not None:
            check_number("minutes", self.minutes, above=0)
        if self.quick:
            object.__setattr__(self, "epochs", min(self.epochs, 10))
            object.__setattr__(self, "batch_size", min(self.batch_size, 32))
            object.__setattr__(self, "num_samples", min(self.num_samples, 256))

    def fill(self, defaults: dict[str, Any]) -> None:
        """Give flags that were not given, those that are None, their default for this model."""
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)


def check_number(
    name: str,
    value: float,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Refuse a flag's value unless it is finite and at_least <= value, above < value < below.

    Raises:
        UserError: with the flag's name, what was expected and what it got.
    """
    if not (math.isfinite(value) and value >= at_least and above < value < below):
        bounds = {"of at least": at_least, "above": above, "below": below}
        said = " and ".join(f"{k} {v:g}" for k, v in bounds.items() if math.isfinite(v))
        flag = name.replace("_", "-")
        raise UserError(f"--{flag}: expected a finite number {said}, got {value:g}")


def cli(main: Callable[[Any], None], config_class: type) -> None:
    """Parse the command line into `config_class` and call `main`; used by every script's guard.

    A UserError ends the process with its one line on stderr and exit code 2, without a traceback.
    """
    import tyro

    try:
        main(tyro.cli(config_class, config=(tyro.conf.FlagCreatePairsOff,)))
    except UserError as error:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, torch.OutOfMemoryError) as error:
        print(f"error: out of memory ({error}): try a smaller --batch-size", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped. If training was over, --resume goes on with the rest", file=sys.stderr)
        sys.exit(130)
