"""The small digit classifier whose features every quality metric is computed on.

`digit_network.pt`, beside this file, holds what `python -m code_examples.utils.digit_network` made:

    weights        state of `DigitNetwork`, float16 (everything below was measured after rounding)
    mean, cov      of the features of MNIST's 10,000 test images, (D,) and (D, D) float64
    features       the same features, (10000, D) uint8; times `feature_scale` (D,) they are float
    test_accuracy  share of the 10,000 test images that the rounded network gets right

Why not Inception, as for photographs: its features describe textures and dog breeds, its weights
are 95 MB, and digits would have to be blown up to 299x299. Numbers on this network compare with
each other, and never with a published FID. It was trained on MNIST's 60,000 training images, which
all 5,000 of `mnist5k` are among; the reference above it has never seen.

Run: python -m code_examples.utils.digit_network --data-root data
Expect: a test accuracy of 99.6% (the shipped file: 99.60%) after 12 passes, 2 to 4 minutes on two
CPU cores.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import load_images
from .errors import UserError
from .flags import ROOT, cli

ASSET = Path(__file__).with_name("digit_network.pt")
NUM_FEATURES = 64


class DigitNetwork(nn.Module):
    """Convolutional classifier of (B, 1, 28, 28) pictures in [0, 1]; 80,000 parameters."""

    def __init__(self, num_features: int = NUM_FEATURES) -> None:
        """Builds the layers.

        Args:
            num_features: D, the width of the penultimate layer.
        """
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=5, stride=2, padding=2, bias=False),  # B 32 14 14
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 48, kernel_size=3, padding=1, bias=False),  # B 48 14 14
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.MaxPool2d(2),  # B 48 7 7
            nn.Conv2d(48, 64, kernel_size=3, padding=1, bias=False),  # B 64 7 7
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),  # B 64 3 3
            nn.Flatten(),
        )
        # Normalised before the ReLU, so that no feature dies and all have a like scale: a Frechet
        # distance must not be ruled by the one feature that happens to be large.
        self.to_features = nn.Sequential(
            nn.Linear(64 * 3 * 3, num_features, bias=False),
            nn.BatchNorm1d(num_features),
            nn.ReLU(),
        )
        self.to_logits = nn.Linear(num_features, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D), all >= 0, and class logits (B, 10) of pictures (B, 1, 28, 28)."""
        features = self.to_features(self.convs(x))
        return features, self.to_logits(features)


@dataclass(frozen=True)
class Config:
    """Makes digit_network.pt from the full MNIST."""

    data_root: Path = ROOT / "data"
    """Folder of the MNIST files; downloaded to it when missing."""
    out: Path = ASSET
    """File to write."""
    epochs: int = 12
    """Passes over the 60,000 training images, 10 to 20 s each on two CPU cores."""
    seed: int = 0
    """Seed of weights, order and augmentation."""


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 1, H, W) turned by up to 10 degrees, scaled by 10% and moved by 2 pixels."""
    turn, grow, right, down = 2 * torch.rand(4, len(x), generator=generator) - 1
    angle, scale, pixel = turn * math.radians(10), 1 + 0.1 * grow, 2 / x.shape[-1]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cos, -sin, 2 * pixel * right, sin, cos, 2 * pixel * down], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def train(x: Tensor, y: Tensor, *, epochs: int, seed: int, batch_size: int = 256) -> DigitNetwork:
    """A network trained on pictures (N, 1, 28, 28) and labels (N,); the last state is kept.

    Args:
        x: Pictures in [0, 1].
        y: Labels 0..9, int64.
        epochs: Passes over the pictures.
        seed: Seed of weights, order and augmentation.
        batch_size: Pictures a step.

    Returns:
        The network in evaluation mode. No state is chosen by its score on any held-out set.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitNetwork()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = len(x) // batch_size  # the last few of each shuffled pass are left out
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, epochs=epochs, steps_per_epoch=steps
    )
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(x), generator=generator)[: steps * batch_size]
        for index in order.split(batch_size):
            _, logits = model(augment(x[index], generator))
            loss = F.cross_entropy(logits, y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}  loss {total / steps:.4f}", flush=True)
    return model.eval()


def make_asset(model: DigitNetwork, x: Tensor, y: Tensor) -> dict:
    """The content of digit_network.pt, all measured with the weights that a reader will load.

    Args:
        model: A trained network.
        x: The reference pictures (N, 1, 28, 28) in [0, 1]: MNIST's test images.
        y: Their labels (N,), used for the accuracy alone.
    """
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    features, logits = evaluate(network_from(weights), x)
    scale = features.amax(dim=0).clamp(min=1e-6) / 255
    return {
        "weights": weights,
        "mean": features.mean(dim=0),
        "cov": torch.cov(features.T),
        "features": (features / scale).round().to(torch.uint8),
        "feature_scale": scale,
        "test_accuracy": (logits.argmax(dim=1) == y).double().mean().item(),
    }


def network_from(weights: dict[str, Tensor]) -> DigitNetwork:
    """The network with these weights, float32, in evaluation mode; draws no random number."""
    with torch.random.fork_rng(devices=[]):  # building the layers would advance the global state
        model = DigitNetwork()
    model.load_state_dict(weights)
    return model.float().eval().requires_grad_(False)


@torch.no_grad()
def evaluate(model: DigitNetwork, x: Tensor, batch_size: int = 1000) -> tuple[Tensor, Tensor]:
    """Features (N, D) and logits (N, 10), float64 on the CPU, of pictures (N, 1, 28, 28).

    Autocast and TF32 are off: a metric must not move with the precision that a run trains in.
    """
    device = next(model.parameters()).device
    pairs = []
    with (
        torch.autocast(device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
    ):
        for batch in x.split(batch_size):
            features, logits = model(batch.to(device, torch.float32))
            pairs.append((features.cpu().double(), logits.cpu().double()))
    features, logits = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return features, logits


@lru_cache(maxsize=1)
def load_asset() -> dict:
    """The content of digit_network.pt; treat it as read-only.

    Raises:
        UserError: if the file is missing.
    """
    if not ASSET.is_file():
        raise UserError(f"expected the digit network at {ASSET}, got no file: restore it from git")
    return torch.load(ASSET, map_location="cpu", weights_only=True)


@lru_cache(maxsize=2)
def shipped_network(device: str = "cpu") -> DigitNetwork:
    """The shipped network on a device, in evaluation mode."""
    return network_from(load_asset()["weights"]).to(device)


@lru_cache(maxsize=1)
def shipped_reference() -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), covariance (D, D) and features (10000, D) of MNIST's test images, float64.

    The features are stored in 8 bits and differ from exact ones by at most 1/510 of their range;
    mean and covariance were computed before that rounding.
    """
    asset = load_asset()
    return asset["mean"], asset["cov"], asset["features"].double() * asset["feature_scale"]


def main(config: Config) -> None:
    """Trains the network and writes the asset; prints its test accuracy and size."""
    data = load_images("mnist", config.data_root)
    model = train(data.train, data.train_labels, epochs=config.epochs, seed=config.seed)
    asset = make_asset(model, data.test, data.test_labels)
    partial = config.out.with_suffix(".partial")
    torch.save(asset, partial)
    partial.replace(config.out)
    size = config.out.stat().st_size
    print(f"test accuracy {asset['test_accuracy']:.2%}, {size:,} bytes written to {config.out}")


if __name__ == "__main__":
    cli(main, Config)
