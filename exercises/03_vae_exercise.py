"""Exercise 3, VAEs: draw z so that gradients flow, say what it costs, and bound log p(x).

Replace each `raise NotImplementedError(...)` by your answer, then ask for an opinion:

    python -m exercises check 3.1    is it right, and if not, which mistake is it?
    python -m exercises hint 3.1     a question; again: where to look; again: nearly the line
    python -m exercises              what you have solved, and what is next

Tasks are graded one by one, and what a task builds on is supplied: take them in any order, and one
bug is reported once. Any right answer passes, however it is written; add imports and functions of
your own as you like. A docstring is a contract: shapes, ranges and reductions are what it says.

    prior p(z) = N(0, I)     encoder q(z|x) = N(mu, diag(exp(logvar)))     decoder p(x|z)

Sizes:  B images a batch, C x H x W pixels an image, L values in z, k draws of z an image.
Models: `mu, logvar = model.encode(x)`, each (B, L); `logits = model.decode(z)`, (N, C, H, W) for z
of shape (N, L) with any N: pixel c is 1 with probability sigmoid(logits[c]). Nothing is averaged
unless a contract says so: losses are sums over pixels and over latents, one for each image.
Ten tasks, about 110 minutes. The theory is in notes/03_vaes_and_latent_variable_models.md, and
code_examples/03_variational_autoencoder.py is what the pieces grow into.
"""

import math
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

# --- 3.1 reparameterize (easy, 8 minutes) -------------------------------------------
# read: notes/03 section 3.1


def reparameterize(mu: Tensor, logvar: Tensor) -> Tensor:
    """Draw z ~ N(mu, exp(logvar)) so that gradients flow from z to mu and logvar.

    exp(logvar) is the variance. Every element of every image gets a draw of its own, new at each
    call.

    Args:
        mu: (B, L).
        logvar: (B, L), any real number, natural logarithm; both arguments stay as they were.

    Returns:
        z (B, L), of mu's dtype, with dz/dmu = 1 and dz/dlogvar = (z - mu) / 2.
    """
    raise NotImplementedError("Exercise 3.1: reparameterize")


# --- 3.2 kl_to_standard_normal (easy, 10 minutes) -----------------------------------
# read: notes/03 section 4


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL( N(mu, diag(exp(logvar))) || N(0, I) ) of each image, in nats.

    Exact (nothing is sampled), summed over the L latent dimensions, and never negative but for
    rounding.

    Args:
        mu: (B, L).
        logvar: (B, L), any real number; both arguments stay as they were.

    Returns:
        (B,), one value for each image, also for B = 1; gradients flow to mu and logvar.
    """
    raise NotImplementedError("Exercise 3.2: kl_to_standard_normal")


# --- 3.3 bernoulli_nll (easy, 8 minutes) --------------------------------------------
# read: notes/03 section 5.1


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x|z) of each image whose pixels are coins with probability sigmoid(logits), in nats.

    -log p(x|z) = -sum_pixels [ x log s + (1 - x) log(1 - s) ],  s = sigmoid(logits)

    Finite and exact to rounding for logits of any size: a pixel with a logit of 1000 costs 1000
    where x is 0, and 0 where x is 1.

    Args:
        logits: (B, C, H, W), any real number.
        x: Images (B, C, H, W) in [0, 1]; grey ones are treated by the same formula.

    Returns:
        (B,), summed over C, H and W, also for B = 1; gradients flow to the logits.
    """
    raise NotImplementedError("Exercise 3.3: bernoulli_nll")


# --- 3.4 gaussian_nll (medium, 12 minutes) ------------------------------------------
# read: notes/03 section 5.2


def gaussian_nll(mean: Tensor, log_sigma: Tensor, x: Tensor) -> Tensor:
    """-log N(x; mean, sigma^2 I) of each image, sigma = exp(log_sigma), in nats.

    The full density with its normalising constant, 0.5 log(2 pi) a pixel; it may be negative.
    Exact for every sigma: nothing is clamped, and nothing is added to the variance.

    Args:
        mean: (B, C, H, W), the decoder's output.
        log_sigma: Shape (), the logarithm of the standard deviation that all pixels share.
        x: Images (B, C, H, W).

    Returns:
        (B,), summed over C, H and W, also for B = 1; gradients flow to mean and log_sigma.
    """
    raise NotImplementedError("Exercise 3.4: gaussian_nll")


# --- 3.5 Encoder (medium, 14 minutes) -----------------------------------------------
# read: notes/03 section 4


class Encoder(nn.Module):
    """q(z|x): an image's mean and log-variance of z, whose L dimensions are independent normals.

        mu, logvar = encoder(x)    each (B, L), any real number: no activation after the last layer

    At least one hidden layer with a nonlinearity after it lies between the image and each output;
    which layers they are is up to you, an `nn.Linear` with `hidden_dim` units is enough. mu and
    logvar are different functions of the image. Each image is treated by itself (in eval mode), and
    nothing is drawn here: the same image gives the same mu and logvar.

    Args:
        image_shape: (C, H, W) of one image.
        latent_dim: L, the number of values in z.
        hidden_dim: Units of the hidden layers, if you use it.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int, hidden_dim: int = 64
    ) -> None:
        super().__init__()
        raise NotImplementedError("Exercise 3.5: Encoder.__init__")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar, each (B, L), of images x (B, C, H, W) in [0, 1]."""
        raise NotImplementedError("Exercise 3.5: Encoder.forward")


# --- 3.6 negative_elbo (hard, 15 minutes) -------------------------------------------
# read: notes/03 section 2.3


def negative_elbo(model: nn.Module, x: Tensor, beta: float = 1.0) -> Tensor:
    """Reconstruction + beta * KL of each image, from one draw z ~ q(z|x) an image, in nats.

    The reconstruction is -log p(x|z) as in 3.3, the KL is the exact one of 3.2. This is minus the
    ELBO for beta = 1: to be minimised. Train or eval mode stay as they are.

    Args:
        model: `encode(x)` gives (mu, logvar), each (B, L); `decode(z)` gives logits (B, C, H, W).
        x: Images (B, C, H, W) in [0, 1]; they stay as they were.
        beta: Weight of the KL, at least 0.

    Returns:
        (B,), also for B = 1; gradients flow to the decoder, and to the encoder both through the KL
        and through z.
    """
    raise NotImplementedError("Exercise 3.6: negative_elbo")


# --- 3.7 sample_prior (easy, 9 minutes) ---------------------------------------------
# read: notes/03 section 6


def sample_prior(model: nn.Module, n: int, latent_dim: int) -> Tensor:
    """Pictures of n draws z ~ N(0, I): the mean of each pixel given z, sigmoid(decode(z)).

    The pixels are means in [0, 1], not tossed coins. Each picture has a z of its own, new at each
    call. The model is in eval mode while it decodes, and afterwards in the mode it was in; no
    gradient graph is built.

    Args:
        model: `decode(z)` gives logits (n, C, H, W) for z (n, L).
        n: How many pictures, at least 1.
        latent_dim: L.

    Returns:
        (n, C, H, W) in [0, 1].
    """
    raise NotImplementedError("Exercise 3.7: sample_prior")


# --- 3.8 interpolate (medium, 10 minutes) -------------------------------------------
# read: notes/03 section 6


def interpolate(model: nn.Module, x_start: Tensor, x_end: Tensor, steps: int) -> Tensor:
    """Decode a straight line between the mu of two images: the mean of each pixel, in [0, 1].

    z goes in equal steps from the mu of x_start (first row of the result) to the mu of x_end (last
    row), both included; nothing is drawn. The model is in eval mode meanwhile, and afterwards in
    the mode it was in; no gradient graph is built.

    Args:
        model: `encode(x)` gives (mu, logvar), each (B, L); `decode(z)` gives logits (N, C, H, W).
        x_start: One image (C, H, W) in [0, 1].
        x_end: Another one (C, H, W).
        steps: How many pictures, at least 2.

    Returns:
        sigmoid(decode(z)) for each z on the way, (steps, C, H, W), in that order.
    """
    raise NotImplementedError("Exercise 3.8: interpolate")


# --- 3.9 iwae_bound (medium, 10 minutes) --------------------------------------------
# read: notes/03 section 7


def iwae_bound(log_w: Tensor) -> Tensor:
    """log( (w_1 + ... + w_k) / k ) of each image: a lower bound of log p(x) on average, in nats.

    Larger is better (it is no loss: there is no minus sign). With k = 1 it is log_w itself, the
    estimate of the ELBO. Exact to rounding wherever the log-weights lie, be it at -1000 or at 1000,
    and images of one batch may differ that much.

    Args:
        log_w: (k, B), log-weights of k draws (dim 0) for each of B images, finite; it stays as it
            was.

    Returns:
        (B,), also for k = 1 and for B = 1; gradients flow to log_w.
    """
    raise NotImplementedError("Exercise 3.9: iwae_bound")


# --- 3.10 log_importance_weights (hard, 14 minutes) ---------------------------------
# read: notes/03 section 7


def log_importance_weights(model: nn.Module, x: Tensor, k: int) -> Tensor:
    """log w = log p(x|z) + log p(z) - log q(z|x) for k draws z ~ q(z|x) of each image, in nats.

    Both densities of z are sums over the L dimensions. All k * B draws are independent. The mean of
    w over many draws is p(x).

    Args:
        model: `encode(x)` gives (mu, logvar), each (B, L); `decode(z)` gives logits (N, C, H, W).
        x: Images (B, C, H, W) in [0, 1]; they stay as they were.
        k: Draws for each image, at least 1.

    Returns:
        (k, B), where column b belongs to image b; gradients flow to the decoder, and to the encoder
        through z as well as through q's density.
    """
    raise NotImplementedError("Exercise 3.10: log_importance_weights")
