"""Halves completed: the top, which is a beginning, and the left, which is not and needs weights.

Run:     python -m notes.figures.autoregressive_completions
Writes:  autoregressive_completions.png

The chapter's default network, trained first if there is no finished run. The lower half is drawn
from p(rest | top), (8.42). Right halves are drawn by the same loop from (8.43), which is not
p(rest | left); of many draws one is chosen by its weight (8.44). The effective number of draws,
1 / sum of the squared weights, says how far that goes: where it is near 1, one draw carries all,
and more of them would have been needed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from code_examples import pixelcnn, utils
from code_examples.utils.metrics import digit_features

from .autoregressive_model import Trained, load

HERE = Path(__file__).parent
SHOWN = 10


@dataclass(frozen=True)
class Config(pixelcnn.Config):
    """Complete halves of test pictures and let the digit network read them."""

    model: Literal["pixelcnn"] = "pixelcnn"
    """The default network."""
    count: int = 100
    """Test pictures."""
    draws: int = 64
    """Completions of each."""
    figures: Path = HERE
    """Where the picture goes."""


def halves(shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Where the top half and the left half of a picture (C, H, W) are."""
    top, left = torch.zeros(2, *shape, dtype=torch.bool)
    top[:, : shape[1] // 2], left[..., : shape[2] // 2] = True, True
    return {"top": top, "left": left}


def completions(trained: Trained, x: Tensor, known: Tensor, draws: int) -> Tensor:
    """Several of each picture of x (N, C, H, W): (N, draws, C, H, W)."""
    repeated = x.repeat_interleave(draws, dim=0)
    return trained.complete(repeated, known=known).unflatten(0, (len(x), draws))


def log_weights(trained: Trained, x: Tensor, known: Tensor) -> Tensor:
    """log of (8.44), nats: how likely the known pixels of x (..., C, H, W) are after the others."""
    log_p = trained.log_prob(x.flatten(0, -4))
    return log_p[:, known].double().sum(dim=1).view(x.shape[:-3])


def read_right(x: Tensor, y: Tensor) -> Tensor:
    """Whether the digit network sees the labels y (N,) in pictures (N, draws, C, H, W)."""
    _, probs = digit_features(x.flatten(0, 1))
    return (probs.argmax(dim=1).view(x.shape[:2]) == y[:, None]).double()


def standard_error(values: Tensor) -> float:
    """Of the mean of values (N,)."""
    return values.std().item() / len(values) ** 0.5


def judge(x: Tensor, drawn: dict[str, Tensor], weights: Tensor, y: Tensor) -> None:
    """Print how often the digit network sees the labels y (N,), in the mean over the draws."""
    right = {"test pictures": read_right(x[:, None], y).mean(dim=1)}
    for name, known in halves(x.shape[1:]).items():
        right[f"{name} half, the rest black"] = read_right((x * known)[:, None], y).mean(dim=1)
        each = read_right(drawn[name], y)
        right[f"{name} half, completed"] = each.mean(dim=1)
    right["left half, chosen by weight"] = (each * weights).sum(dim=1)  # in the mean over choices
    gain = right["left half, chosen by weight"] - right["left half, completed"]
    print("| pictures | read as their label | standard error |")
    for name, values in (right | {"gain by weights": gain}).items():
        print(f"| {name} | {values.mean():.1%} | {standard_error(values):.1%} |")


def main(config: Config) -> None:
    """Print nats, effective draws and how the halves are read; draw some."""
    trained = load(config)
    x, y = trained.test[: config.count], trained.data.test_labels[: config.count]
    torch.manual_seed(config.seed)
    log_p, known = trained.log_prob(x), halves(x.shape[1:])
    for name, mask in known.items():
        nats = -log_p[:, ~mask].mean(dim=1)
        error = standard_error(nats)
        print(f"{name} given, the other half by the loop: {nats.mean():.4f} +- {error:.4f} nats/px")
    drawn = {name: completions(trained, x, mask, config.draws) for name, mask in known.items()}
    log_w = log_weights(trained, drawn["left"], known["left"])
    weights, true = log_w.softmax(dim=1), log_weights(trained, x, known["left"])
    effective = 1 / weights.square().sum(dim=1)
    low, middle, high = effective.quantile(torch.tensor([0.1, 0.5, 0.9]).double()).tolist()
    print(
        f"effective draws of {config.draws}: median {middle:.2f}, 10% {low:.2f}, 90% {high:.2f}\n"
        f"log weights, nats: mean {log_w.mean():.1f}, spread {log_w.std(dim=1).mean():.1f}, "
        f"highest {log_w.amax(dim=1).mean():.1f}; of the true pictures {true.mean():.1f}"
    )
    judge(x, drawn, weights, y)
    rows = {"test pictures": x}
    for name, mask in known.items():
        rows[f"{name} given"] = torch.where(mask, x, 0.5)
        rows |= {f"{name}, drawn {i + 1}": drawn[name][:, i] for i in range(min(2, config.draws))}
    chosen = torch.multinomial(weights, 1)[:, 0]
    rows["left, by weight"] = drawn["left"][torch.arange(len(x)), chosen]
    path = utils.image_rows(
        {name: pictures[:SHOWN] for name, pictures in rows.items()},
        config.figures / "autoregressive_completions.png",
        title=f"Halves completed; in the last row one of {config.draws} draws, chosen by its weight"
        f" (effective draws: {middle:.1f})",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
