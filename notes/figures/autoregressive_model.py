"""The trained network that figure scripts of note 8 share: the chapter's default run."""

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from code_examples import pixelcnn, utils

from .seeds import is_finished, runs_folder


class Trained(NamedTuple):
    """A network of averaged weights on the CPU, and what belongs to it."""

    model: nn.Module
    likelihood: pixelcnn.Softmax
    data: utils.ImageData
    test: Tensor  # its test pictures (N, C, H, W) on the grid of levels

    def complete(self, x: Tensor, **how: Tensor | float) -> Tensor:
        """Pictures like x (N, C, H, W), drawn anew where they are not `known`."""
        draw = partial(pixelcnn.sample, self.model, self.likelihood, **how)
        return utils.in_parts(self.model, draw, x)[0]

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of each number of x (N, C, H, W) given those before it, nats."""

        def log_prob(x: Tensor) -> Tensor:
            return self.likelihood.log_prob(self.model(x), x)

        return utils.in_parts(self.model, log_prob, x, rows=100)[0]


def run(config: pixelcnn.Config) -> Path:
    """Train the default network, unless there is a finished run; return the run's folder."""
    named = f"-{config.dataset}" * (config.dataset != "mnist5k")
    folder = runs_folder(config) / f"autoregressive-pixelcnn{named}-0"
    if is_finished(folder, quick=config.quick):
        return folder
    names = ("dataset", "data_root", "epochs", "minutes", "device", "precision", "quick")
    own = {name: getattr(config, name) for name in (*names, "num_samples")}
    own |= {"width": 8, "layers": 2} if config.quick else {}
    pixelcnn.main(pixelcnn.Config(**own, out=folder))
    return folder


def load(config: pixelcnn.Config) -> Trained:
    """The default network with its data; trained first if no finished run lies in its folder."""
    folder = run(config)
    state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
    names = {field.name for field in fields(pixelcnn.Config)} - {"out", "data_root", "resume"}
    chapter = pixelcnn.Config(**{name: state["flags"][name] for name in names})
    data = utils.load_images(chapter.dataset, config.data_root, quick=chapter.quick)
    likelihood = pixelcnn.Softmax(chapter.levels)
    model = pixelcnn.build(chapter, data.image_shape, likelihood.outputs, 0)
    model.load_state_dict(state["objects"]["ema"])  # what the chapter draws from and measures
    model = model.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return Trained(model, likelihood, data, pixelcnn.quantize(data.test, chapter.levels))
