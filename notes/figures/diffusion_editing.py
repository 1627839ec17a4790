"""What a trained model can do besides sampling: fill a hole, and walk between two images.

Run:     python -m notes.figures.diffusion_editing
Writes:  diffusion_inpainting.png, diffusion_interpolation.png

The model is the chapter's default, trained first if diffusion_gallery has not done so. It was never
taught either of the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from code_examples import diffusion, utils

from .diffusion_gallery import load, runs_folder

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Config(diffusion.Config):
    """Draw completions of upper halves, and ways from one digit to another."""

    completions: int = 4
    """Different lower halves of each digit."""
    repeats: int = 5
    """How often each step of inpainting is taken."""
    figures: Path = HERE
    """Where the pictures go."""


def inpaint(
    denoise: diffusion.Denoise,
    schedule: diffusion.Schedule,
    x_0: Tensor,
    known: Tensor,
    times: Sequence[int],
    repeats: int = 5,
) -> Tensor:
    """Keep images x_0 (B, C, H, W) where `known` is True, and draw the rest; notes/04 eq. (4.73).

    After each reverse step the known part is put back, with the noise it should have. Stepping back
    and forth `repeats` times lets the new part adapt to it. Lugmayr et al. (2022), RePaint,
    arXiv:2201.09865, algorithm 1.
    """
    x = torch.randn_like(x_0)
    for t, s in pairwise(times):
        for left in reversed(range(repeats)):
            x, _ = diffusion.p_sample(denoise, schedule, x, t, s)
            given = diffusion.q_sample(schedule, x_0, s, torch.randn_like(x))
            x = torch.where(known, given, x)
            if left and s >= 0:
                (signal_t, noise_t), (signal_s, noise_s) = schedule.at(t, x), schedule.at(s, x)
                ratio = signal_t / signal_s
                added = (noise_t.square() - (ratio * noise_s).square()).sqrt()
                x = ratio * x + added * torch.randn_like(x)  # q(x_t | x_s)
    return x


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """From start to end (...) on an arc, (K, ...), so that lengths stay noise's; eq. (4.74)."""
    cos = F.cosine_similarity(start.flatten(), end.flatten(), dim=0).clamp(-0.9999, 0.9999)
    angle, share = cos.acos(), share.view(-1, *[1] * start.ndim)
    return ((angle * (1 - share)).sin() * start + (angle * share).sin() * end) / angle.sin()


def interpolate(model: diffusion.Diffusion, pair: Tensor, y: Tensor, points: int = 9) -> Tensor:
    """Lead two images (2, C, H, W) with labels (2,) into the noise by DDIM, walk there, and return.

    Returns:
        (points, C, H, W), all decoded with the first label.
    """
    down = model.schedule.times(100)
    up = [0, *(t for t in reversed(down) if t > 0)]
    start, _ = model.schedule.at(0, pair)
    denoise = diffusion.denoiser(model, y)
    ends = diffusion.last(diffusion.ddim(denoise, model.schedule, start * pair, up))
    between = slerp(*ends, torch.linspace(0, 1, points, device=pair.device))
    denoise = diffusion.denoiser(model, y[:1].expand(points))
    return diffusion.last(diffusion.ddim(denoise, model.schedule, between, down))


def draw_inpainting(model: diffusion.Diffusion, x: Tensor, config: Config) -> Path:
    """Rows: images x (B, C, H, W), what is given of them, and completions."""
    known = torch.zeros_like(x, dtype=torch.bool)
    known[:, :, : x.shape[2] // 2] = True
    times, denoise = model.schedule.times(config.sampling_steps), diffusion.denoiser(model)
    rows = {"test images": x, "given": torch.where(known, x, 0.0)}
    for k in range(1, config.completions + 1):
        rows[f"completion {k}"] = inpaint(
            denoise, model.schedule, x, known, times, repeats=config.repeats
        )
    for k in (1, 2):
        rows[f"no repeats, {k}"] = inpaint(denoise, model.schedule, x, known, times, repeats=1)
    return utils.image_rows(
        {name: diffusion.pixels(row) for name, row in rows.items()},
        config.figures / "diffusion_inpainting.png",
        title=f"Lower halves for given upper ones, each step taken {config.repeats} times",
    )


def draw_interpolation(model: diffusion.Diffusion, pairs: Tensor, config: Config) -> Path:
    """Rows: pairs (K, 2, C, H, W) through the noise, and under it through the pixels."""
    rows, share = {}, torch.linspace(0, 1, 9, device=pairs.device).view(-1, 1, 1, 1)
    for k, pair in enumerate(pairs, 1):
        y = torch.zeros(2, dtype=torch.long, device=pair.device)
        rows[f"pair {k}, noise"] = diffusion.pixels(interpolate(model, pair, y))
        rows[f"pair {k}, pixels"] = diffusion.pixels((1 - share) * pair[0] + share * pair[1])
    return utils.strips(
        rows,
        config.figures / "diffusion_interpolation.png",
        title="From one test image to another, through their noises and through their pixels",
        xlabel="share of the way",
        ticks=share.flatten().tolist(),
    )


def main(config: Config) -> None:
    """Draw both pictures."""
    folder = runs_folder(config) / "diffusion-ddpm-0"
    model, data = load(folder, config)
    run = utils.start(replace(config, out=folder), __file__)
    model.to(run.device)
    x = (2 * data.test[:22] - 1).to(run.device)
    with run.autocast(), torch.no_grad():
        print(draw_inpainting(model, x[:8], config))
        print(draw_interpolation(model, x[14:].unflatten(0, (4, 2)), config))


if __name__ == "__main__":
    utils.cli(main, Config)
