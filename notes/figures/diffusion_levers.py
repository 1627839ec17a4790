"""What buys quality in two minutes on a CPU: the choices of the default run changed in turn.

Run:     python -m notes.figures.diffusion_levers --data-root ../shared/data
         python -m notes.figures.diffusion_levers --rows default "batch 256" --reuse
Writes:  diffusion_levers.png; diffusion_levers.json in the folder of the runs

Every row trains for the same time, so that a lever counts by what it brings in this time: a slower
network sees fewer images.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from code_examples import diffusion, utils

from .diffusion_gallery import is_finished, runs_folder

HERE = Path(__file__).parent
Adam = torch.optim.Adam
KEPT = ("images_seen", "training_seconds", "parameters", "frechet_distance", "precision", "recall")


class GroupNorm(nn.GroupNorm):
    """What most U-Nets have where the chapter has ChannelNorm: 8 groups of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__(8, channels)


class Nothing(nn.Module):
    """In the place of a block, returns x as it is."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, *cond: Tensor) -> Tensor:
        return x


class FullUNet(diffusion.UNet):
    """The chapter's U-Net under one more level, of all pixels, in place of pixel_unshuffle."""

    def __init__(self, shape: tuple, width: int, timesteps: int, num_classes: int = 0) -> None:
        super().__init__(shape, width, timesteps, num_classes)
        channels, inner = shape[0], 2 * width
        self.inlet = nn.Conv2d(channels, width, 3, padding=1)
        self.first, self.final = (diffusion.ResBlock(width, inner) for _ in range(2))
        self.shrink = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.grow, self.merge = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(2 * width, width, 1)
        self.outlet = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        height, wide = self.shape[1:]
        cond = self.condition(t, y)
        x = F.pad(x_t, (0, -wide % 4, 0, -height % 4))
        top = self.first(self.inlet(x), cond)  # (B, width, H, W)
        skip = self.before(self.shrink(top), cond)  # (B, width, H/2, W/2)
        h = self.inner[0](self.down(skip), cond)  # (B, 2 width, H/4, W/4)
        h = self.whole(self.attention(h), cond)
        h = self.inner[2](self.inner[1](h, cond), cond)
        h = self.join(torch.cat([F.pixel_shuffle(self.up(h), 2), skip], dim=1))
        h = F.pixel_shuffle(self.grow(self.after(h, cond)), 2)
        h = self.final(self.merge(torch.cat([h, top], dim=1)), cond)
        return self.outlet(F.silu(self.norm(h)))[..., :height, :wide]


def plain_adam(parameters, *, fused: bool, **flags) -> Adam:
    """Adam as it is without the flag `fused`."""
    return Adam(parameters, **flags)


# Row: flags of the chapter, and (owner, name, what stands in its place while the row is trained).
ROWS = {
    "default": ({}, ()),
    "fp32": ({"precision": "fp32"}, ()),
    "no channels_last": ({}, (torch, "channels_last", torch.contiguous_format)),
    "GroupNorm": ({}, (diffusion, "ChannelNorm", GroupNorm)),
    "no WholeBlock": ({}, (diffusion, "WholeBlock", Nothing)),
    "no attention": ({}, (diffusion, "Attention", Nothing)),
    "full resolution": ({}, (diffusion, "UNet", FullUNet)),
    "batch 256": ({"batch_size": 256}, ()),
    "cosine rate": ({}, (utils.Run, "trapezoid", utils.Run.cosine)),
    "plain Adam": ({}, (torch.optim, "Adam", plain_adam)),
    "predict eps": ({"predict": "eps"}, ()),
    "predict v": ({"predict": "v"}, ()),
    "linear schedule": ({"schedule": "linear"}, ()),
    "cosine schedule": ({"schedule": "cosine"}, ()),
    "min-snr": ({"weighting": "min-snr"}, ()),
    "no EMA": ({"ema": 0.0}, ()),
}


@dataclass(frozen=True)
class Config(diffusion.Config):
    """Train the default and its variants for the same time."""

    dataset: str = "mnist"
    """As in the chapter; with few images other levers count."""
    minutes: float | None = 2.0
    """Training time of each run; --quick counts epochs instead."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which rows, by name; the first is what the others' speed is compared with."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the picture goes."""


def run(config: Config, name: str) -> dict[str, float]:
    """Train one row, or take the finished run; return its metrics."""
    folder = runs_folder(config) / f"lever-{name.replace(' ', '-')}"
    if not (config.reuse and is_finished(folder, quick=config.quick)):
        flags, change = ROWS[name]
        same = {"dataset": config.dataset, "data_root": config.data_root, "quick": config.quick}
        short = {"epochs": config.epochs, "sampling_steps": 10}
        same |= short if config.quick else {"minutes": config.minutes}
        same |= {"seed": config.seed, "device": config.device, "bound_times": 1}
        patch = mock.patch.object(*change) if change else contextlib.nullcontext()
        with patch:
            diffusion.main(diffusion.Config(out=folder, **same, **flags))
    m = json.loads((folder / "metrics.json").read_text())
    kept = {key: m[key] for key in KEPT}
    return kept | {"images_per_second": m["images_seen"] / m["training_seconds"]}


def main(config: Config) -> None:
    """Run everything, print the table, and draw the Frechet distances."""
    if unknown := set(config.rows) - set(ROWS):
        raise utils.UserError(f"--rows: expected some of {', '.join(ROWS)}; got {unknown}")
    table = {name: run(config, name) for name in config.rows}
    default = next(iter(table.values()))
    for m in table.values():
        m["speed"] = m["images_per_second"] / default["images_per_second"]
    (runs_folder(config) / "diffusion_levers.json").write_text(json.dumps(table, indent=2))
    print("| row | images, thousands | parameters | Frechet | precision | recall | speed |")
    for name, m in table.items():
        print(
            f"| {name} | {m['images_seen'] / 1000:.0f} | {m['parameters']:,} | "
            f"{m['frechet_distance']:.2f} | {m['precision']:.3f} | {m['recall']:.3f} | "
            f"{m['speed']:.2f} |"
        )
    path = utils.bars(
        {name: m["frechet_distance"] for name, m in table.items()},
        config.figures / "diffusion_levers.png",
        ylabel="Frechet distance, 2,000 samples",
        title="One choice of the default run changed at a time, equal training time",
        fmt="{:.1f}",
        baseline={config.rows[0]: default["frechet_distance"]},
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
