"""Generative adversarial network (GAN): a generator learns by fooling a discriminator.

    min over G, max over D:   E_x[ log D(x) ]  +  E_z[ log(1 - D(G(z))) ],   D = sigmoid(logit)

    discriminator: minimise  softplus(-logit of real)  +  softplus(logit of fake)
    generator:     minimise  softplus(-logit of fake)  ("non-saturating", --model dcgan)
    at the optimum D(x) = p(x) / (p(x) + q(x)), with p the data's and q the generator's density

Shapes:  B examples a batch, C x H x W pixels an image (or 2 coordinates), L latent dimensions.
Paper:   Goodfellow et al. (2014), Generative adversarial nets, arXiv:1406.2661; networks after
         Radford et al. (2016), DCGAN, arXiv:1511.06434. Other papers stand beside their code.
Run:     python code_examples/02_gans.py
         python code_examples/02_gans.py --dataset ring
Expect:  after two minutes on two CPU cores with bfloat16, a Frechet distance of 4.1 (three seeds:
         3.9 to 4.3) for 2,000 samples, recall 0.79; on the ring 8 of 8 modes, 99% good samples.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam, Optimizer

if __package__:  # imported: from code_examples import gans
    from . import utils
else:  # run: python code_examples/02_gans.py
    import utils

Net, Loss, Metrics = nn.Module, Callable[..., Tensor], dict[str, float | int | str]

# --- Model --------------------------------------------------------------------------


class Generator(nn.Module):
    """Latents z (B, L), and labels y (B,) if num_classes is not 0, to fake data."""

    def __init__(self, net: nn.Module, latent_dim: int, num_classes: int = 0) -> None:
        super().__init__()
        self.net, self.latent_dim, self.num_classes = net, latent_dim, num_classes

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self.num_classes:
            z = torch.cat([z, F.one_hot(y, self.num_classes)], dim=1)
        return self.net(z).float()


class Discriminator(nn.Module):
    """Data to logits: positive for real. A critic has the same network, its logit is a score.

    Args:
        features: From data to (B, width).
        minibatch_std: Tell it how much the batch varies; Karras et al. (2018), arXiv:1710.10196.
        num_classes: If not 0, add <embedding of the label, features>, which asks how well the two
            fit; Miyato & Koyama (2018), arXiv:1802.05637. Unlike a label that is appended to the
            input, it cannot be overlooked among 784 pixels.
    """

    def __init__(
        self,
        features: nn.Module,
        width: int,
        minibatch_std: bool = False,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.features, self.minibatch_std = features, minibatch_std
        self.head = nn.Linear(width + minibatch_std, 1)
        self.embedding = nn.Embedding(num_classes, width) if num_classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.features(x).float()
        match = (self.embedding(y) * h).sum(dim=1) if self.embedding is not None else 0
        if self.minibatch_std:
            h = torch.cat([h, h.std(dim=0).mean().expand(len(h), 1)], dim=1)
        return self.head(h).squeeze(1).float() + match


def pack(x: Tensor, m: int) -> Tensor:
    """Join m examples to one along the channels: (B, C, ...) to (B // m, m C, ...).

    The discriminator judges them together, so that a lack of variety shows. Lin et al. (2018),
    PacGAN, arXiv:1712.04086.
    """
    x = x[: len(x) // m * m]
    return x.reshape(len(x) // m, m * x.shape[1], *x.shape[2:])


def down_block(channels_in: int, channels_out: int, norm: bool = True) -> nn.Sequential:
    """Halve height and width by a stride: (B, C_in, H, W) to (B, C_out, H/2, W/2)."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=not norm),
        nn.BatchNorm2d(channels_out) if norm else nn.Identity(),
        nn.LeakyReLU(0.2),
    )


def normalised(discriminator: Discriminator) -> Discriminator:
    """Divide each weight matrix by its largest singular value: no layer is steeper than 1.

    Miyato et al. (2018), Spectral normalization for GANs, arXiv:1802.05957; notes/02 section 5.4.
    """
    for module in list(discriminator.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            spectral_norm(module)
    return discriminator


def image_networks(
    shape: tuple[int, int, int], config: "Config", num_classes: int = 0
) -> tuple[Generator, Discriminator]:
    """The networks for pictures: all convolutions at a half and a quarter of the resolution."""
    channels, height, wide = shape
    h, w = max(2, ceil(height / 4)), max(2, ceil(wide / 4))  # the discriminator halves once more
    latent, width = config.latent_dim, config.width
    generator = nn.Sequential(
        nn.Linear(latent + num_classes, 2 * width * h * w, bias=False),
        nn.Unflatten(1, (2 * width, h, w)),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1, bias=False),
        nn.PixelShuffle(2),  # (B, 32, H/2, W/2): 4 channels become 2 x 2 pixels
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 4 * channels, 5, padding=2),
        nn.PixelShuffle(2),  # (B, C, H, W)
        nn.ZeroPad2d((0, wide - 4 * w, 0, height - 4 * h)),  # negative: cuts what is too large
        nn.Sigmoid(),
    )
    # A penalty looks at the slope at single examples, which batch norm would tie together.
    norm = not (config.gradient_penalty or config.r1 or config.spectral_norm)
    features = nn.Sequential(
        nn.ZeroPad2d((0, 4 * w - wide, 0, 4 * h - height)),
        down_block(channels * config.packing, width, norm=False),
        down_block(width, 2 * width, norm=norm),
        down_block(2 * width, 4 * width, norm=norm),
        nn.Conv2d(4 * width, 4 * width, (h // 2, w // 2)),  # the whole picture at once
        nn.LeakyReLU(0.2),
        nn.Flatten(),
    )
    discriminator = Discriminator(features, 4 * width, config.minibatch_std, num_classes)
    if config.spectral_norm:
        normalised(discriminator)
    return Generator(generator, latent, num_classes), discriminator


def plane_networks(config: "Config", width: int = 128) -> tuple[Generator, Discriminator]:
    """Small networks of linear layers for points in the plane."""

    def layers(size: int, act: nn.Module) -> list[nn.Module]:
        return [nn.Linear(size, width), act, nn.Linear(width, width), act]

    generator = nn.Sequential(*layers(config.latent_dim, nn.ReLU()), nn.Linear(width, 2))
    features = nn.Sequential(*layers(2 * config.packing, nn.LeakyReLU(0.2)))
    discriminator = Discriminator(features, width, config.minibatch_std)
    if config.spectral_norm:
        normalised(discriminator)
    return Generator(generator, config.latent_dim), discriminator


# --- Objective ----------------------------------------------------------------------

# Losses are means over the batch, (), since a real and a fake example are no pair: the two batches
# may even differ in size.


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, smoothing: float = 0.0) -> Tensor:
    """-E[log D(real)] - E[log(1 - D(fake))], (), nats; notes/02 eq. (2.2).

    smoothing: call real examples real with probability 1 - smoothing only; one-sided, Salimans et
    al. (2016), arXiv:1606.03498, section 3.4. -log(1 - D) = softplus(logit) never overflows.
    """
    real = (1 - smoothing) * F.softplus(-real_logits) + smoothing * F.softplus(real_logits)
    return real.mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-E[log D(fake)], (), nats: "non-saturating", steep where D is sure; notes/02 eq. (2.6)."""
    return F.softplus(-fake_logits).mean()


def saturating_loss(fake_logits: Tensor) -> Tensor:
    """E[log(1 - D(fake))], (), nats: minimax's, flat where D is sure; notes/02 eq. (2.6)."""
    return -F.softplus(fake_logits).mean()


def least_squares_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Regression to 1 and 0, (); Mao et al. (2017), 1611.04076; notes/02 eq. (2.9)."""
    return 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())


def least_squares_generator_loss(fake_logits: Tensor) -> Tensor:
    """Regression of the fakes to 1, ()."""
    return 0.5 * (fake_logits - 1).square().mean()


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E[f(fake)] - E[f(real)], (): minus the Wasserstein estimate; Arjovsky et al. (2017)."""
    return fake_scores.mean() - real_scores.mean()


def critic_generator_loss(fake_scores: Tensor) -> Tensor:
    """-E[f(fake)], (): move where the critic scores higher."""
    return -fake_scores.mean()


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Only logits inside the margin (-1, 1) cost, (); Lim & Ye (2017), arXiv:1705.02894."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


LOSSES: dict[str, tuple[Loss, Loss]] = {
    "dcgan": (discriminator_loss, generator_loss),
    "conditional": (discriminator_loss, generator_loss),
    "minimax": (discriminator_loss, saturating_loss),
    "lsgan": (least_squares_loss, least_squares_generator_loss),
    "wgan": (critic_loss, critic_generator_loss),
    "wgan-gp": (critic_loss, critic_generator_loss),
    "hinge": (hinge_loss, critic_generator_loss),
}


def slopes(discriminator: Loss, x: Tensor, y: Tensor | None = None) -> Tensor:
    """Length of the gradient of the logit with respect to each example, (B,), differentiable."""
    x = x.detach().requires_grad_()
    logits = discriminator(x) if y is None else discriminator(x, y)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.flatten(1).norm(dim=1)


def gradient_penalty(
    discriminator: Loss, real: Tensor, fake: Tensor, y: Tensor | None = None
) -> Tensor:
    """E[(|slope| - 1)^2] at points between pairs of real and fake, (); notes/02 eq. (2.13).

    One alpha for each example, so that the points lie on lines. Gulrajani et al. (2017), Improved
    training of Wasserstein GANs, arXiv:1704.00028, algorithm 1.
    """
    alpha = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    between = alpha * real + (1 - alpha) * fake
    return (slopes(discriminator, between, y) - 1).square().mean()


def r1_penalty(discriminator: Loss, real: Tensor, y: Tensor | None = None) -> Tensor:
    """E[slope^2] / 2 at real examples, (); Mescheder et al. (2018); notes/02 eq. (2.15)."""
    return 0.5 * slopes(discriminator, real, y).square().mean()


# --- Training and sampling ----------------------------------------------------------


def discriminator_step(
    generator: Net, discriminator: Net, optimizer: Optimizer, x: Tensor, y: Tensor, run: utils.Run
) -> dict[str, Tensor]:
    """One step of the discriminator on real x (B, ...) and as many fakes; returns what to log."""
    config, loss_of = run.config, LOSSES[run.config.model][0]
    smoothed, real = config.smoothing > 0, pack(x, config.packing)
    with run.autocast():
        with torch.no_grad():  # the generator learns nothing in this step
            z = torch.randn(len(x), utils.unwrapped(generator).latent_dim, device=x.device)
            fake = pack(generator(z, y), config.packing)
        real_logits, fake_logits = discriminator(real, y), discriminator(fake, y)
        loss = total = loss_of(real_logits, fake_logits, *([config.smoothing] * smoothed))
        if config.gradient_penalty:
            penalty = gradient_penalty(discriminator, real, fake, y)
            total = total + config.gradient_penalty * penalty
        if config.r1:
            total = total + config.r1 * r1_penalty(discriminator, real, y)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    if config.clip:  # a crude way to bound the critic's slope
        for weight in discriminator.parameters():
            weight.data.clamp_(-config.clip, config.clip)
    logs = {"d_loss": loss, "d_grad_norm": utils.grad_norm(discriminator)}
    if config.model in ("wgan", "wgan-gp"):
        return logs | {"wasserstein": real_logits.mean() - fake_logits.mean()}
    return logs | {"d_real": probability(real_logits, run), "d_fake": probability(fake_logits, run)}


def generator_step(
    generator: Net, discriminator: Net, optimizer: Optimizer, x: Tensor, y: Tensor, run: utils.Run
) -> dict[str, Tensor]:
    """One step of the generator; x (B, ...) is for `unrolled` only. Returns what to log."""
    config = run.config
    with run.autocast():
        z = torch.randn(len(x), utils.unwrapped(generator).latent_dim, device=x.device)
        fake, real = pack(generator(z, y), config.packing), pack(x, config.packing)
        weights = unrolled(discriminator, real, fake, y, config) if config.unrolled else {}
        loss = LOSSES[config.model][1](functional_call(discriminator, weights, (fake, y)))
    optimizer.zero_grad()
    loss.backward(inputs=list(generator.parameters()))  # the discriminator keeps its gradients
    optimizer.step()
    return {"g_loss": loss, "g_grad_norm": utils.grad_norm(generator)}


def unrolled(
    discriminator: Net, real: Tensor, fake: Tensor, y: Tensor, config: "Config"
) -> dict[str, Tensor]:
    """The discriminator's weights after k steps of gradient descent, as functions of the fakes.

    The generator's gradient then includes how the discriminator will react. Metz et al. (2017),
    arXiv:1611.02163; notes/02 eq. (2.24).
    """
    weights = dict(discriminator.named_parameters())
    for _ in range(config.unrolled):
        logits = (functional_call(discriminator, weights, (x, y)) for x in (real, fake))
        loss = LOSSES[config.model][0](*logits)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        step = config.unrolled_lr
        weights = {n: w - step * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
    return weights


def probability(logits: Tensor, run: utils.Run) -> Tensor:
    """Mean D(x), (); the least-squares discriminator returns it without a sigmoid."""
    return (logits if run.config.model == "lsgan" else logits.sigmoid()).mean()


def train(
    generator: Generator,
    discriminator: Discriminator,
    x: Tensor,
    y: Tensor,
    look: Callable[[nn.Module], tuple[Tensor, Metrics]],
    run: utils.Run,
) -> Generator:
    """Alternate the two steps on data x (N, ...); return the generator of averaged weights."""
    config = run.config
    d_lr, betas = config.lr * config.two_time_scales, (config.beta1, 0.99)
    d_optimizer = Adam(discriminator.parameters(), lr=d_lr, betas=betas)
    g_optimizer = Adam(generator.parameters(), lr=config.lr, betas=betas)
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    run.keep(
        generator=generator,
        discriminator=discriminator,
        ema=ema,
        d_optimizer=d_optimizer,
        g_optimizer=g_optimizer,
    )
    net_g, net_d = run.data_parallel(generator), run.data_parallel(discriminator)
    for real, label in run.batches(x, y):
        d_optimizer.param_groups[0]["lr"] = run.cosine(d_lr)
        g_optimizer.param_groups[0]["lr"] = run.cosine(config.lr)
        logs = discriminator_step(generator, net_d, d_optimizer, real, label, run)
        if run.step % config.d_steps == config.d_steps - 1:
            logs |= generator_step(net_g, discriminator, g_optimizer, real, label, run)
            utils.update_ema(ema, generator, min(config.ema, run.step / (run.step + 10)))
        run.log(**logs)
        if run.time_to_look():
            frame, metrics = look(ema)
            run.show(frame)
            run.log(**metrics)
    return ema


def decode(generator: Generator, z: Tensor, y: Tensor) -> Tensor:
    """What the generator makes of latents (N, L) and labels (N,)."""
    return utils.in_parts(generator, generator, z, y)[0]


def sample(generator: Generator, n: int) -> Tensor:
    """Draw z ~ N(0, I), and labels in turn: (n, C, H, W) in [0, 1], or (n, 2)."""
    y = torch.arange(n) % max(1, generator.num_classes)
    return decode(generator, torch.randn(n, generator.latent_dim), y)


def count_modes(samples: Tensor, centers: Tensor, std: float) -> tuple[int, float]:
    """Which modes are there? Samples (N, D), centers (K, D) of Gaussians of width std.

    Returns:
        How many centers have a sample within 3 std that is nearest to them, and the share of
        samples within 3 std of a center; as in VEEGAN, Srivastava et al. (2017), arXiv:1705.07761.
    """
    distance, nearest = torch.cdist(samples.double(), centers.double()).min(dim=1)
    good = distance < 3 * std
    return len(nearest[good].unique()), good.double().mean().item()


# --- Experiment ---------------------------------------------------------------------


# What a flag is when it is not given, for pictures and for points in the plane.
DEFAULTS = {"epochs": 70, "batch_size": 64, "lr": 4e-3, "two_time_scales": 0.05, "latent_dim": 64}
DEFAULTS |= {"d_steps": 1, "gradient_penalty": 0.0, "clip": 0.0, "spectral_norm": False}
PLANE = {"epochs": 60, "batch_size": 128, "lr": 1e-3, "two_time_scales": 1.0, "latent_dim": 2}
VARIANTS = {
    "wgan": {"d_steps": 5, "two_time_scales": 1.0, "lr": 1e-3, "clip": 0.01},
    "wgan-gp": {"d_steps": 2, "two_time_scales": 1.0, "lr": 3e-3, "gradient_penalty": 10.0},
    "hinge": {"spectral_norm": True, "two_time_scales": 1.0, "lr": 2e-3},
}


@dataclass(frozen=True)
class Config(utils.Config):
    """Train a generative adversarial network on pictures, or on points in the plane."""

    model: Literal["dcgan", "minimax", "lsgan", "wgan", "wgan-gp", "hinge", "conditional"] = "dcgan"
    """Which loss; hinge has spectral normalisation, wgan clips, conditional takes labels."""
    dataset: str = "mnist5k"
    """Images as in every chapter, or a density in the plane: ring, grid, moons, ..."""
    epochs: int | None = None
    """Passes over the training set; 70 unless given, 60 in the plane."""
    batch_size: int | None = None
    """Real examples a step; 64 unless given, 128 in the plane."""
    lr: float | None = None
    """Peak rate of the generator; 4e-3 unless given, critics, hinge and plane 1e-3 to 3e-3."""
    two_time_scales: float | None = None
    """D's learning rate over the generator's; 0.05 unless given (critics, hinge, plane 1)."""
    latent_dim: int | None = None
    """Latent dimensions; 64 unless given, 2 in the plane."""
    d_steps: int | None = None
    """Discriminator steps for each step of the generator; 1 unless given (wgan-gp 2, wgan 5)."""
    width: int = 32
    """Channels at half the resolution; a quarter of it has twice as many."""
    beta1: float = 0.5
    """Adam's momentum; with the usual 0.9 the two players swing around the optimum."""
    ema: float = 0.999
    """Decay of the average of the generator's weights that samples are drawn with; 0: none."""
    smoothing: float = 0.0
    """Real examples are called real with probability 1 minus this; Salimans et al. (2016)."""
    spectral_norm: bool | None = None
    """Divide the discriminator's weights by their largest singular value; Miyato et al. (2018)."""
    gradient_penalty: float | None = None
    """Weight of (slope - 1)^2 between real and fake; 0 unless given (wgan-gp 10)."""
    r1: float = 0.0
    """Weight of slope^2 / 2 at real examples; Mescheder et al. (2018)."""
    clip: float | None = None
    """Keep the critic's weights in [-clip, clip]; 0: anywhere (wgan 0.01)."""
    minibatch_std: bool = False
    """Tell the discriminator how much a batch varies; Karras et al. (2018)."""
    packing: int = 1
    """Examples judged together; Lin et al. (2018)."""
    unrolled: int = 0
    """Steps of the discriminator that the generator foresees; Metz et al. (2017)."""
    unrolled_lr: float = 0.1
    """Step size of those steps."""

    def __post_init__(self) -> None:
        plane = PLANE if self.dataset in utils.DENSITIES else {}
        self.fill(VARIANTS.get(self.model, {}) | plane)
        self.fill(DEFAULTS)
        super().__post_init__()
        for name in ("latent_dim", "d_steps", "packing", "width"):
            utils.check_number(name, getattr(self, name), at_least=1)
        for name in ("gradient_penalty", "r1", "clip", "unrolled", "unrolled_lr"):
            utils.check_number(name, getattr(self, name), at_least=0)
        for name in ("beta1", "ema", "smoothing"):
            utils.check_number(name, getattr(self, name), at_least=0, below=1)
        utils.check_number("two_time_scales", self.two_time_scales, above=0)
        utils.check_number("batch_size", self.batch_size, at_least=2 * self.packing)
        if self.smoothing and LOSSES[self.model][0] is not discriminator_loss:
            raise utils.UserError(
                f"--smoothing: expected 0 for {self.model}, whose discriminator has no "
                f"probabilities, got {self.smoothing}: leave it out"
            )
        if self.model == "conditional" and (plane or self.packing > 1):
            raise utils.UserError(
                f"--model conditional: expected pictures with labels and --packing 1, got "
                f"{self.dataset} and {self.packing}: choose another --model"
            )


def spread(x: Tensor) -> float:
    """Root mean squared distance of two examples of x (N, ...)."""
    return (2 * x.flatten(1).var(dim=0).sum()).sqrt().item()


def diagnose(run: utils.Run, samples: Tensor, data: Tensor) -> list[str]:
    """What has gone wrong in this run, and what to try: a list of sentences, empty if healthy."""

    def late(name: str) -> float:  # mean over the last third of the training
        values = run.series(name)[1]
        last = values[2 * len(values) // 3 :]
        return sum(last) / max(1, len(last))

    said = []
    if run.series("d_real")[0] and late("d_real") > 0.97 and late("d_fake") < 0.03:
        said.append(
            f"the discriminator is never wrong: D(real) {late('d_real'):.3f}, D(fake) "
            f"{late('d_fake'):.3f}. Try --r1 1, --spectral-norm True, or a lower --two-time-scales"
        )
    if run.series("g_grad_norm")[0] and late("g_grad_norm") < 1e-3 * late("d_grad_norm"):
        said.append(
            f"the generator's gradient has vanished: {late('g_grad_norm'):.1e}. Try the "
            "non-saturating --model dcgan, or --model wgan-gp"
        )
    if spread(samples) < 0.3 * spread(data):
        said.append(
            f"the samples are nearly identical: they lie {spread(samples):.2f} apart, data "
            f"{spread(data):.2f}. Try --packing 2, --minibatch-std or --r1 1"
        )
    return said


def show_training(run: utils.Run) -> None:
    """Both losses, what the discriminator says, gradients, and quality over time, in panels."""
    panels = {
        "loss": ("d_loss", "g_loss"),
        "probability of real": ("d_real", "d_fake"),
        "E[f(real)] - E[f(fake)]": ("wasserstein",),
        "length of the gradient": ("d_grad_norm", "g_grad_norm"),
        "Frechet distance, 500 samples": ("frechet_distance",),
        "modes": ("modes",),
        "share of good samples": ("high_quality_share",),
    }
    title = f"Training: {run.config.model} on {run.config.dataset}"
    run.draw_histories(
        panels, title=title, logy=("length of the gradient", "Frechet distance, 500 samples")
    )


def pictures(config: Config, run: utils.Run) -> None:
    """Train on pictures; write samples, a walk, the nearest training images, and metrics."""
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    classes = len(data.class_names) * (config.model == "conditional")
    generator, discriminator = image_networks(data.image_shape, config, classes)
    for net in (generator, discriminator):
        net.to(run.device, memory_format=torch.channels_last)
    probe = torch.randn(64, config.latent_dim), torch.arange(64) % max(1, classes)

    def look(ema: Generator) -> tuple[Tensor, Metrics]:
        distance = utils.quick_frechet_distance(sample(ema, 500), data)
        return decode(ema, *probe), {"frechet_distance": distance}

    ema = train(generator, discriminator, data.train, data.train_labels, look, run)
    if run.rank:
        return  # under torchrun only the first process evaluates and writes
    begin = time.perf_counter()
    samples = sample(ema, config.num_samples)
    seconds = time.perf_counter() - begin
    run.save_samples(samples, title=f"Samples of {config.model}")
    show_training(run)
    rows = {
        "samples": samples[:10],
        "nearest training image": utils.nearest(samples[:10], data.train),
    }
    utils.image_rows(rows, run.path("neighbours.png"), title="Is it memorising?")
    ends, share = torch.randn(4, 2, config.latent_dim), torch.linspace(0, 1, 9)[:, None]
    y = torch.zeros(9, dtype=torch.long)
    walks = {str(k): decode(ema, torch.lerp(*z[:, None], share), y) for k, z in enumerate(ends, 1)}
    utils.strips(walks, run.path("interpolation.png"), title="Between two draws of z")
    if classes:
        z, y = torch.randn(8, config.latent_dim), torch.arange(classes).repeat_interleave(8)
        grid, title = decode(ema, z.repeat(classes, 1), y), "Each row a class, each column one z"
        utils.image_grid(grid, run.path("classes.png"), columns=8, title=title)
    report(run, samples, data.train, utils.sample_quality(samples, data), seconds)


def plane(config: Config, run: utils.Run) -> None:
    """Train on points in the plane; draw the samples, and count modes where there are any."""
    density = utils.density(config.dataset)
    x = density.sample(2_000 if config.quick else 50_000)
    generator, discriminator = plane_networks(config)
    for net in (generator, discriminator):
        net.to(run.device)
    z = torch.randn(2_500, config.latent_dim)

    def quality(points: Tensor) -> Metrics:
        if density.modes is None:
            return {}
        modes, share = count_modes(points, density.modes, density.std)
        return {"modes": modes, "high_quality_share": share}

    def look(ema: Generator) -> tuple[Tensor, Metrics]:
        points = decode(ema, z, z[:, 0].long())
        return utils.cloud(points, density.bounds), quality(points)

    ema = train(generator, discriminator, x, torch.zeros(len(x), dtype=torch.long), look, run)
    if run.rank:
        return
    begin = time.perf_counter()
    samples = sample(ema, max(2_500, config.num_samples))
    seconds = time.perf_counter() - begin
    run.save_points(samples)
    show_training(run)
    clouds = {"data": x[: len(samples)], config.model: samples}
    utils.scatter_2d(clouds, run.path("samples.png"), bounds=density.bounds)
    report(run, samples, x, quality(samples), seconds)


def report(run: utils.Run, samples: Tensor, data: Tensor, metrics: Metrics, seconds: float) -> None:
    """Say what went wrong, if anything, and write metrics.json."""
    for sentence in diagnose(run, samples, data):
        print(f"trouble: {sentence}")
    run.finish(
        **metrics,
        spread_ratio=spread(samples) / spread(data),
        seconds_per_1000_samples=1000 * seconds / len(samples),
    )


def main(config: Config) -> None:
    """Train on pictures or in the plane, and say how well it went."""
    run = utils.start(config, __file__)
    (plane if config.dataset in utils.DENSITIES else pictures)(config, run)


if __name__ == "__main__":
    utils.cli(main, Config)
