"""Exercise 2, GANs: two losses, two steps that do not disturb each other, and a critic's penalty.

Replace each `raise NotImplementedError(...)` by your answer, then ask for an opinion:

    python -m exercises check 2.1    is it right, and if not, which mistake is it?
    python -m exercises hint 2.1     a question; again: where to look; again: nearly the line
    python -m exercises              what you have solved, and what is next

Tasks are graded one by one, and what a task builds on is supplied: take them in any order, and one
bug is reported once. Any right answer passes, however it is written; add imports and functions of
your own as you like. A docstring is a contract: shapes, ranges and reductions are what it says.

    z ~ N(0, I)     fake = generator(z)     sigmoid(discriminator(x)) = probability that x is real

Sizes:  B real images a batch, N fake ones (not always as many), C x H x W pixels, L values in z.
Models: `generator(z)` gives N images for z (N, L); `discriminator(x)` gives one logit for each
image, (B,), and `critic(x)` one score, (B,): any real number, with no sigmoid after it.
Losses are means over a batch, in nats, and are minimised.
Ten tasks, about 120 minutes. The theory is in notes/02_gans_detailed_guide.md, and
code_examples/02_gans.py is what the pieces grow into.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --- 2.1 sample_latent (easy, 4 minutes) --------------------------------------------
# read: notes/02 section 1


def sample_latent(n: int, latent_dim: int) -> Tensor:
    """Draw n latent vectors z ~ N(0, I).

    All n * latent_dim numbers are independent, and new at each call. They come from PyTorch's
    global random numbers: the caller's `torch.manual_seed` decides them, and is not undone.

    Args:
        n: How many vectors, at least 1.
        latent_dim: L.

    Returns:
        z (n, latent_dim), float32, without a gradient graph.
    """
    raise NotImplementedError("Exercise 2.1: sample_latent")


# --- 2.2 discriminator_loss (easy, 12 minutes) --------------------------------------
# read: notes/02 section 1


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Cross-entropy of the discriminator, real images 1 and fake ones 0, in nats.

    mean over real of -log sigmoid(logit)  +  mean over fake of -log(1 - sigmoid(logit))

    The sum of the two means, not halved: 2 log 2 for logits 0. Finite and exact to rounding for
    logits of any size: a logit of 1000 on a fake image costs 1000, on a real one 0.

    Args:
        real_logits: (B,), the discriminator's answers to real images.
        fake_logits: (N,), its answers to fake ones; N need not be B. Both stay as they were.

    Returns:
        The loss, a tensor of shape (), through which gradients flow to both arguments.
    """
    raise NotImplementedError("Exercise 2.2: discriminator_loss")


# --- 2.3 smoothed_discriminator_loss (medium, 10 minutes) ---------------------------
# read: notes/02 section 7.1


def smoothed_discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, smoothing: float
) -> Tensor:
    """`discriminator_loss` with one-sided label smoothing: the target of real images is below 1.

    mean over real of [ -(1 - smoothing) log s - smoothing log(1 - s) ]
    + mean over fake of -log(1 - s),  s = sigmoid(logit)        (Salimans et al. 2016)

    The target of every real image is 1 - smoothing, that of fake images stays 0. Finite and exact
    to rounding for logits of any size.

    Args:
        real_logits: (B,).
        fake_logits: (N,); N need not be B. Both stay as they were.
        smoothing: In [0, 1); with 0 this is `discriminator_loss`.

    Returns:
        The loss in nats, a tensor of shape (), through which gradients flow to both logits.
    """
    raise NotImplementedError("Exercise 2.3: smoothed_discriminator_loss")


# --- 2.4 generator_loss (easy, 10 minutes) ------------------------------------------
# read: notes/02 section 3


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of the generator, in nats: mean over the batch of -log sigmoid(logit).

    log 2 for logits 0, and never negative. Finite and exact to rounding for logits of any size: a
    logit of -1000 costs 1000.

    Args:
        fake_logits: (N,), the discriminator's answers to fake images; they stay as they were.

    Returns:
        The loss, a tensor of shape (), through which gradients flow to the logits.
    """
    raise NotImplementedError("Exercise 2.4: generator_loss")


# --- 2.5 down_block (medium, 12 minutes) --------------------------------------------
# read: notes/02 section 6.2


def down_block(channels_in: int, channels_out: int) -> nn.Module:
    """A block of a discriminator that halves height and width of its feature maps.

        x (B, channels_in, H, W)  ->  (B, channels_out, H / 2, W / 2)    H, W even, at least 4

    It is made of three layers, usually in this order; another order is accepted:

    - an `nn.Conv2d` of stride 2, which does the halving and lets every pixel of x have an influence
      (whether it has a bias is up to you);
    - a normalisation layer of PyTorch, batch, instance or group norm, with an eps of at most 1e-3;
    - a leaky ReLU, whose slope for negative values lies between 0 and 1, both excluded.

    Nothing in it is random, and x stays as it was.

    Args:
        channels_in: Channels of x, at least 1.
        channels_out: Channels of the result, a multiple of 8.

    Returns:
        A new module, with parameters of its own at each call.
    """
    raise NotImplementedError("Exercise 2.5: down_block")


# --- 2.6 discriminator_step (medium, 15 minutes) ------------------------------------
# read: notes/02 section 6.1


def discriminator_step(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    z: Tensor,
) -> float:
    """One optimiser step of the discriminator on `discriminator_loss`, with generator(z) as fakes.

    The gradient is that of this batch alone: whatever is in `.grad` before must not matter. The
    generator is not trained: its parameters and their `.grad` stay as they were, also where `.grad`
    is None. Both networks run in the mode, train or eval, that they are in, and stay in it; in
    train mode batch norm may update its running statistics, in the generator too. Every parameter
    keeps its `requires_grad`: what the caller has frozen stays frozen. Real and fake images may
    pass the discriminator together or one after the other.

    Args:
        generator: Maps z (N, L) to N images.
        discriminator: Maps images to one logit for each.
        optimizer: Holds the discriminator's parameters, and no others.
        real: B real images; they stay as they were.
        z: (N, L), the latents to use; N need not be B. They stay as they were.

    Returns:
        The loss before the step, in nats, as a float.
    """
    raise NotImplementedError("Exercise 2.6: discriminator_step")


# --- 2.7 generator_step (medium, 14 minutes) ----------------------------------------
# read: notes/02 section 6.1


def generator_step(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer: torch.optim.Optimizer,
    z: Tensor,
) -> float:
    """One optimiser step of the generator on `generator_loss` of discriminator(generator(z)).

    The gradient is that of this batch alone: whatever is in `.grad` of either network before must
    not matter. The discriminator is not trained: its parameters stay as they were. What is in their
    `.grad` afterwards is free, since `discriminator_step` empties it. Both networks run in the
    mode, train or eval, that they are in, and stay in it; in train mode batch norm may update its
    running statistics. Every parameter keeps its `requires_grad`: what the caller has frozen stays
    frozen, and the discriminator can be trained at once.

    Args:
        generator: Maps z (N, L) to N images.
        discriminator: Maps images to one logit for each.
        optimizer: Holds the generator's parameters, and no others.
        z: (N, L), the latents to use; they stay as they were.

    Returns:
        The loss before the step, in nats, as a float.
    """
    raise NotImplementedError("Exercise 2.7: generator_step")


# --- 2.8 critic_loss (easy, 6 minutes) ----------------------------------------------
# read: notes/02 section 5.1


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """What a WGAN's critic minimises: mean score of fake images minus mean score of real ones.

    Minus this is the critic's estimate of the Wasserstein distance. It may have either sign.

    Args:
        real_scores: (B,), any real number.
        fake_scores: (N,); N need not be B. Both stay as they were.

    Returns:
        The loss, a tensor of shape (), through which gradients flow to both arguments.
    """
    raise NotImplementedError("Exercise 2.8: critic_loss")


# --- 2.9 gradient_penalty (hard, 22 minutes) ----------------------------------------
# read: notes/02 section 5.3


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Penalty for slopes other than 1: mean over the batch of ( ||d critic / d x_hat||_2 - 1 )^2.

    x_hat = alpha * real + (1 - alpha) * fake, with one alpha ~ U(0, 1) for each sample, new at each
    call. The norm is over all numbers of a sample together. There is no weight lambda in it. Slopes
    below 1 are penalised like those above; where the gradient is 0 the penalty is 1, and its own
    gradient is finite.

    Args:
        critic: Maps samples to one score for each, (B,), each by itself. Its parameters, their
            `.grad` and `requires_grad`, and its mode stay as they were.
        real: (B, ...), any number of dimensions: points (B, D) or images (B, C, H, W).
        fake: Like real. Both need not require a gradient, and stay as they were.

    Returns:
        The penalty, a tensor of shape (), through which gradients flow to the critic's parameters.
    """
    raise NotImplementedError("Exercise 2.9: gradient_penalty")


# --- 2.10 count_modes (hard, 15 minutes) --------------------------------------------
# read: notes/02 section 8.1


def count_modes(samples: Tensor, centers: Tensor, std: float) -> tuple[int, float]:
    """How many modes of a mixture of Gaussians are met, and which share of the samples is good.

    A sample is of high quality if its Euclidean distance to the nearest center is at most 3 * std.
    Samples with a NaN or infinite coordinate are not, and count among all N.

    Args:
        samples: (N, D), N at least 1.
        centers: (M, D), the means of the mixture, which may lie close together. Both stay as they
            were.
        std: Standard deviation of each Gaussian in each dimension.

    Returns:
        modes: The number of centers that are the nearest one of at least one high-quality sample.
        share: The fraction of the N samples that are of high quality, in [0, 1].
    """
    raise NotImplementedError("Exercise 2.10: count_modes")
