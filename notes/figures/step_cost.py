"""What a training step costs in float32 and bfloat16, with and without channels_last.

Run:     python -m notes.figures.step_cost
Writes:  step_cost.png

The four ways take turns on one machine, so that whatever else it does hits them alike; compare them
as ratios. `--precision auto` follows this measurement.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from code_examples import autoencoder, utils

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(autoencoder.Config):
    """Time steps of the chapter's networks on random images."""

    epochs: int | None = 20
    """Turns that each way takes."""
    steps: int = 10
    """Steps a turn."""
    figures: Path = HERE
    """Where the picture goes."""


def stepper(config: Config, model_name: str, precision: str, channels_last: bool):
    """Return a function that makes one training step in the given way."""
    x = torch.rand(config.batch_size, 1, 28, 28)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    settings = autoencoder.Config(model=model_name)
    model = autoencoder.build(settings, (1, 28, 28)).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            x_hat, _ = model(x)
        loss = autoencoder.squared_error(x_hat.float(), x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main(config: Config) -> None:
    """Time all ways in turns; draw the median milliseconds of a step."""
    ways = {
        (model, f"{precision}{', channels_last' * last}"): stepper(config, model, precision, last)
        for model in ("conv", "mlp")
        for precision in ("fp32", "bf16")
        for last in (False, True)
        if not (model == "mlp" and last)  # it has no channels
    }
    seconds = {way: [] for way in ways}
    for _ in range(config.epochs):
        for way, step in ways.items():
            step()  # a first step warms the caches
            start = time.perf_counter()
            for _ in range(config.steps):
                step()
            seconds[way].append((time.perf_counter() - start) / config.steps)
    medians: dict[str, dict[str, float]] = {}
    for (model, way), times in seconds.items():
        medians.setdefault(model, {})[way] = 1000 * sorted(times)[len(times) // 2]
    for model, costs in medians.items():
        for way, cost in costs.items():
            print(f"{model:<5} {way:<20} {cost:6.2f} ms, {cost / costs['fp32']:.2f} of fp32")
    path = utils.bars(
        medians,
        config.figures / "step_cost.png",
        ylabel="milliseconds a step, median",
        title=f"A training step of {config.batch_size} images on {torch.get_num_threads()} threads",
        fmt="{:.1f}",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
