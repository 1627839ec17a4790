"""What each measure of stability does for the deep energy: without it, and with all of them gone.

Run:     python -m notes.figures.energy_stability
         python -m notes.figures.energy_stability --rows default unstable --seconds 120
         python -m notes.figures.energy_stability --reuse    # runs that are there are not repeated
Writes:  energy_stability.png, energy_instability.png

Each run trains for the same time with one choice of the default `--model conv` changed. The last
two have lost penalty, clipping and noise together and learn at ten times the rate, and the very
last takes one Langevin step where the default takes ten, so that its chains cannot keep up and it
shows what going wrong looks like. Beside each stands what plain rules read from its history and
from the spread of its energies: `diagnose`. About 20 minutes on two CPU cores.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from code_examples import energy, utils

from .seeds import runs_folder

HERE = Path(__file__).parent
DEFAULT = energy.DEFAULTS["conv"]
STRONG = 1.0  # nats; a gap that chains which keep up do not have
NO_CLIP = 1e9  # longer than any gradient
BARE = {"energy_penalty": 0.0, "clip": NO_CLIP, "sigma": 0.0, "lr": 10 * DEFAULT["lr"]}
ROWS = {  # what is changed
    "default": {},
    "no penalty": {"energy_penalty": 0.0},
    "no noise on data": {"sigma": 0.0},
    "no clipping": {"clip": NO_CLIP},
    "rate x 5": {"lr": 5 * DEFAULT["lr"]},
    "no restarts": {"restart": 0.0},
    "short-run": {"training": "short-run"},
    "warmer x 1,000": {"temperature": 1000 * DEFAULT["temperature"]},
    "no average": {"ema": 0.0},
    "1 Langevin step": {"langevin_steps": 1},
    "no measures": BARE,
    "unstable": BARE | {"langevin_steps": 1},
}


@dataclass(frozen=True)
class Config(energy.Config):
    """Train the deep energy without one measure of stability after the other."""

    model: Literal["conv"] = "conv"
    """The deep energy."""
    seconds: float = 45.0
    """Training time of each run; --quick counts epochs instead."""
    num_samples: int = 1000
    """Samples of each, for its Frechet distance."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which runs, by name; the pictures compare the first with the last."""
    reuse: bool = False
    """Take finished runs that are there already."""
    figures: Path = HERE
    """Where the pictures go."""


def train(config: Config, name: str) -> dict:
    """What is known of a run: history, frames and their labels, metrics, and how it failed."""
    folder = runs_folder(config) / f"energy-stability-{name.replace(' ', '-').replace(',', '')}"
    kept = folder / "stability.pt"
    if config.reuse and kept.exists():
        return torch.load(kept, weights_only=True)
    same = ("dataset", "data_root", "seed", "device", "precision", "quick", "num_samples")
    same += ("width", "batch_size", "chains", "langevin_steps", "step_size", "sampling_steps")
    flags = {flag: getattr(config, flag) for flag in same}
    flags |= {"epochs": config.epochs} if config.quick else {"minutes": config.seconds / 60}
    chapter = energy.Config(model="conv", out=folder, **(flags | ROWS[name]))
    run, failed = utils.start(chapter, energy.__file__), ""
    try:
        energy.deep_energy(chapter, run)
    except utils.UserError as error:  # a number that is not finite ends a run
        failed = f"step {run.step}: " + str(error).split(" at step")[0].split(":")[0]
    metrics = folder / "metrics.json"
    result = {
        "spread": spread(folder, chapter),
        "history": run.rows,
        "frames": run.frames,
        "labels": run.labels,
        "failed": failed,
        "frechet": math.nan if failed else json.loads(metrics.read_text())["frechet_distance"],
        "penalty": chapter.energy_penalty,
        "clip": chapter.clip,
    }
    torch.save(result, kept)
    return result


def spread(folder: Path, chapter: energy.Config) -> float:
    """Standard deviation of the energies of test pictures, noise and black pages together."""
    data = utils.load_images(chapter.dataset, chapter.data_root, quick=chapter.quick)
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = energy.ConvEnergy(data.image_shape, chapter.width)
    model.load_state_dict(state["objects"]["ema"])
    x = data.test[:500]
    x = torch.cat([x, torch.rand_like(x), torch.zeros_like(x)])
    return utils.in_parts(model, model, x)[0].std().item()


def last(rows: list[dict], key: str, share: float = 0.2) -> float:
    """Median of a quantity over the last part of the history."""
    values = torch.tensor([row[key] for row in rows], dtype=torch.float64)
    return values[-max(1, round(share * len(values))) :].median().item()


def gap_of(rows: list[dict]) -> float:
    """Energy of the samples above that of the data at the end, nats."""
    return last([{"gap": r["energy_model"] - r["energy_data"]} for r in rows], "gap")


def largest(rows: list[dict]) -> float:
    """Largest mean energy of a batch during training, by size."""
    return max(max(abs(r["energy_data"]), abs(r["energy_model"])) for r in rows)


def diagnose(result: dict) -> str:
    """What a run's history says about its health, by plain rules; notes/07 section 9.3."""
    rows, said = result["history"], [result["failed"]] if result["failed"] else []
    if not rows:
        return "; ".join([*said, "no history"])
    gap = gap_of(rows)
    early = [r["grad_norm"] for r in rows[: max(1, len(rows) // 5)]]
    if last(rows, "grad_norm") > 100 * sorted(early)[len(early) // 2]:
        said.append("gradients explode")
    if result["spread"] < 0.01 * max(1.0, largest(rows)) and abs(gap) < STRONG:
        said.append("all energies equal: nothing learned")
    elif result["penalty"] and gap > 0.8 / result["penalty"]:
        said.append("gap near 1 / penalty: only the penalty holds it")
    elif gap > STRONG:
        said.append("gap far above 0: the chains lag, they do not reach the energies of data")
    elif gap < -STRONG:
        said.append("gap far below 0: the chains found holes below the data")
    elif not said:
        said.append("gap near 0: healthy")
    return "; ".join(said)


def draw(results: dict[str, dict], config: Config) -> None:
    """Curves of the first run and of the last, and the last one's samples over its training."""
    (usual, *_, sick) = results
    panels = {}
    for name in (usual, sick):
        rows = results[name]["history"]
        steps = [r["step"] for r in rows]
        panels[f"gap, {name}"] = {"": (steps, [r["energy_model"] - r["energy_data"] for r in rows])}
    for name in (usual, sick):
        rows = results[name]["history"]
        steps = [r["step"] for r in rows]
        panels[f"gradient, {name}"] = {"": (steps, [r["grad_norm"] for r in rows])}
    path = utils.curve_panels(
        panels,
        config.figures / "energy_stability.png",
        xlabel="step",
        title="Energy of samples minus that of data, nats; length of the weights' gradient",
        logy=[label for label in panels if label.startswith("gradient")],
    )
    print(path)
    shown = {}
    frames, labels = results[sick]["frames"], results[sick]["labels"]
    for k in dict.fromkeys(torch.linspace(0, len(frames) - 1, min(len(frames), 6)).long().tolist()):
        shown[f"{sick}, {labels[k]}"] = frames[k][:12].float() / 255
    frames, labels = results[usual]["frames"], results[usual]["labels"]
    shown[f"{usual}, {labels[-1]}"] = frames[-1][:12].float() / 255
    path = utils.image_rows(
        shown, config.figures / "energy_instability.png", title="Where the chains of training are"
    )
    print(path)


def main(config: Config) -> None:
    """Train all, print the table with a diagnosis of each, and draw two of them."""
    if unknown := set(config.rows) - set(ROWS):
        raise utils.UserError(f"--rows: expected some of {', '.join(ROWS)}; got {unknown}")
    results = {name: train(config, name) for name in config.rows}
    print("\n| run | steps | Frechet | gap at the end | largest energy | spread | diagnosis |")
    for name, result in results.items():
        rows = result["history"]
        numbers = " | | | |"
        if rows:
            numbers = f"{rows[-1]['step']:,} | {result['frechet']:.1f} | "
            numbers += f"{gap_of(rows):.3g} | {largest(rows):.3g} | {result['spread']:.3g}"
        print(f"| {name} | {numbers} | {diagnose(result)} |")
    draw(results, config)


if __name__ == "__main__":
    utils.cli(main, Config)
