"""What a PixelCNN sees, layer by layer: with masks, which leave a blind spot, or with two stacks.

Run:     python -m notes.figures.autoregressive_receptive_fields
Writes:  autoregressive_receptive_fields.png

Nothing is trained: which pixels have a gradient depends on the architecture, not on the weights,
which are random. The table has the share of earlier pixels that is seen, by the gradient at the
middle and over all places, and beside it what (8.31) and (8.32) say of masked networks that are
deep enough. The chapter's masked network begins with 7 x 7, of which a path takes one step only: a
rows above, it ends 3 + (a - 1) columns to the right. Some seconds.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from code_examples import pixelcnn, utils

HERE = Path(__file__).parent
NETWORKS = {"masked, 3 x 3": 1, "masked, 7 x 7 first": 3, "gated": None}  # columns of step one
SEEN, BLIND, LATER, OWN = ((0.34, 0.71, 0.91), (0.84, 0.37, 0.0), (0.88,) * 3, (0.0,) * 3)


@dataclass(frozen=True)
class Config(utils.Config):
    """Draw receptive fields of untrained networks and count what they see."""

    layers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Numbers of layers, besides the first convolution."""
    side: int = 28
    """Rows and columns of the pictures."""
    width: int = 8
    """Channels of the networks."""
    images: int = 8
    """Random pictures, over which gradients are averaged."""
    figures: Path = HERE
    """Where the picture goes."""


def build(name: str, layers: int, side: int, width: int) -> nn.Module:
    """An untrained network of pictures with so many rows and columns, in float64."""
    shape = 1, side, side
    if name == "gated":
        chapter = pixelcnn.Config(model="pixelcnn", layers=layers, width=width)
        return pixelcnn.build(chapter, shape, 2, 0).double()
    model = pixelcnn.MaskedPixelCNN(shape, 2, width, layers)
    if name == "masked, 3 x 3":
        model.first = pixelcnn.CausalConv2d(1, width, (2, 3), mask="A")
    return model.double()


def seen(name: str, layers: int, side: int, middle: int, config: Config) -> Tensor:
    """Which pixels of (side, side) the outputs at (middle, middle) depend on, by their gradient."""
    model = build(name, layers, side, config.width)
    x = torch.rand(config.images, 1, side, side, dtype=torch.float64)
    return pixelcnn.receptive_field(model, x, (0, middle, middle))[0] > 0


def offsets(side: int, middle: int) -> tuple[Tensor, Tensor]:
    """Rows upwards, (side, 1), and columns to the right, (1, side), as seen from the middle."""
    steps = torch.arange(side) - middle
    return -steps[:, None], steps[None, :]


def earlier(side: int, middle: int) -> Tensor:
    """Which pixels come before (middle, middle) in raster order."""
    up, right = offsets(side, middle)
    return (up > 0) | (up == 0) & (right < 0)


def wedge(first: int, side: int, middle: int) -> Tensor:
    """What a deep masked network sees whose first step takes `first` columns, others one."""
    up, right = offsets(side, middle)
    return earlier(side, middle) & ((up == 0) | (right <= first + up - 1))


def share(fields: Tensor, side: int) -> float:
    """Of all pairs (pixel, earlier pixel), how many are seen.

    The field is that of the middle of a picture of 2 side - 1 rows and columns: from each place of
    a smaller one the same offsets are seen, as far as they lie in it.
    """
    up, right = offsets(2 * side - 1, side - 1)
    places = (side - up.abs()) * (side - right.abs())  # how many have a pixel at this offset
    return ((fields * places).sum() / (earlier(2 * side - 1, side - 1) * places).sum()).item()


def colours(field: Tensor, middle: int) -> Tensor:
    """A field (side, side) as an RGB picture (3, side, side)."""
    before = earlier(len(field), middle)
    kinds = torch.where(before, torch.where(field, 0, 1), 2)
    kinds[middle, middle] = 3
    return torch.tensor([SEEN, BLIND, LATER, OWN])[kinds].movedim(-1, 0)


def main(config: Config) -> None:
    """Print the table and draw the fields."""
    torch.manual_seed(config.seed)
    side, middle, rows = config.side, config.side // 2, {}
    print(f"{side} x {side}; earlier pixels seen, %\n| network | layers | middle | all places |")
    for name, first in NETWORKS.items():
        pictures = []
        for layers in config.layers:
            field = seen(name, layers, side, middle, config)
            everywhere = seen(name, layers, 2 * side - 1, side - 1, config)
            at_middle = field.sum() / earlier(side, middle).sum()
            print(f"| {name} | {layers} | {at_middle:.1%} | {share(everywhere, side):.1%} |")
            pictures.append(colours(field, middle))
        if first:
            at_middle = wedge(first, side, middle).sum() / earlier(side, middle).sum()
            everywhere = share(wedge(first, 2 * side - 1, side - 1), side)
            print(f"| {name} | deep, by the formula | {at_middle:.1%} | {everywhere:.1%} |")
        rows[name] = torch.stack(pictures)
    path = utils.strips(
        rows,
        config.figures / "autoregressive_receptive_fields.png",
        ticks=[str(layers) for layers in config.layers],
        xlabel="layers after the first convolution",
        title="What the black pixel sees (blue), does not see (orange); later pixels grey",
    )
    print(path)


if __name__ == "__main__":
    utils.cli(main, Config)
