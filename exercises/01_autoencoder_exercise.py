"""Exercise 1, autoencoders: build one, train it, measure it, and meet its linear ancestor, PCA.

Replace each `raise NotImplementedError(...)` by your answer, then ask for an opinion:

    python -m exercises check 1.1    is it right, and if not, which mistake is it?
    python -m exercises hint 1.1     a question; again: where to look; again: nearly the line
    python -m exercises              what you have solved, and what is next

Tasks are graded one by one, and what a task builds on is supplied: take them in any order, and one
bug is reported once. Any right answer passes, however it is written; add imports and functions of
your own as you like. A docstring is a contract: shapes, ranges and reductions are what it says.

Sizes:  B images a batch, C x H x W pixels an image, L values in a code, N points in D dimensions.
Ten tasks, about 75 minutes. The theory is in notes/01_generative_models_fundamentals.md, and
code_examples/01_autoencoder.py is what the pieces grow into.
"""

from collections.abc import Iterable
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --- 1.1 count_parameters (easy, 3 minutes) -----------------------------------------
# read: notes/01 section 8


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that training changes.

    Every element of every parameter of the model and of the modules inside it counts one. A frozen
    parameter (`requires_grad` is False) does not count, a parameter that several modules share
    counts once, and buffers, such as a batch norm's running mean, do not count.

    Returns:
        The count as an int.
    """
    raise NotImplementedError("Exercise 1.1: count_parameters")


# --- 1.2 Autoencoder (medium, 15 minutes) -------------------------------------------
# read: notes/01 section 6.1


class Autoencoder(nn.Module):
    """A picture squeezed into L numbers, and drawn again from them; notes/01 eq. (1.24).

        z = encode(x)         (B, L)        any real number: no activation after the last layer
        logits = decode(z)    (B, C, H, W)  any real number, of whatever z
        x_hat = forward(x)    (B, C, H, W)  in [0, 1]: sigmoid(decode(encode(x)))

    Encoder and decoder each have at least one hidden layer with a nonlinearity after it; which
    layers they are is up to you, two `nn.Linear` with `hidden_dim` units between them are enough.
    Whatever the output knows of x must have passed through z. Each image is treated by itself.

    Args:
        image_shape: (C, H, W) of one image.
        latent_dim: L, the number of values in a code.
        hidden_dim: Units of the hidden layers, if you use it.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int, hidden_dim: int = 64
    ) -> None:
        super().__init__()
        raise NotImplementedError("Exercise 1.2: Autoencoder.__init__")

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, L) of images x (B, C, H, W) in [0, 1]."""
        raise NotImplementedError("Exercise 1.2: Autoencoder.encode")

    def decode(self, z: Tensor) -> Tensor:
        """Logits (B, C, H, W) of the pixels, from codes z (B, L)."""
        raise NotImplementedError("Exercise 1.2: Autoencoder.decode")

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions (B, C, H, W) in [0, 1] of images x (B, C, H, W)."""
        raise NotImplementedError("Exercise 1.2: Autoencoder.forward")


# --- 1.3 reconstruction_loss (medium, 8 minutes) ------------------------------------
# read: notes/01 section 6.1


def reconstruction_loss(logits: Tensor, x: Tensor) -> Tensor:
    """Bernoulli cross-entropy of images: summed over pixels, averaged over the batch, in nats.

    -log p(x|z) = -sum_pixels [ x log s + (1 - x) log(1 - s) ],  s = sigmoid(logits)

    This is notes/01 eq. (1.27), and eq. (1.28) without rounding. x may be grey, any number
    in [0, 1]. The result is finite and exact for logits of any size: a pixel with a logit of 1000
    costs 1000 where x is 0.

    Args:
        logits: (B, C, H, W), any real number.
        x: The images (B, C, H, W) in [0, 1].

    Returns:
        The loss as a tensor of shape (), through which gradients flow to `logits`.
    """
    raise NotImplementedError("Exercise 1.3: reconstruction_loss")


# --- 1.4 add_noise (easy, 5 minutes) ------------------------------------------------
# read: notes/01 section 6.4


def add_noise(x: Tensor, sigma: float) -> Tensor:
    """x + sigma * eps with eps ~ N(0, I), one draw for every pixel; notes/01 eq. (1.40).

    Args:
        x: Images (B, C, H, W); the caller's tensor stays as it was.
        sigma: Standard deviation of the noise, at least 0.

    Returns:
        The noisy images (B, C, H, W), of x's dtype, not clipped; with sigma = 0 equal to x.
    """
    raise NotImplementedError("Exercise 1.4: add_noise")


# --- 1.5 denoising_loss (medium, 7 minutes) -----------------------------------------
# read: notes/01 section 6.4


def denoising_loss(model: nn.Module, x: Tensor, sigma: float) -> Tensor:
    """How well the model draws clean images from noisy ones: `reconstruction_loss`, in nats.

    The encoder sees images with Gaussian noise of standard deviation sigma, new at each call; the
    target is the clean x.

    Args:
        model: Has `encode` (images to codes) and `decode` (codes to logits), as in 1.2.
        x: Clean images (B, C, H, W) in [0, 1]; they stay as they were.
        sigma: Standard deviation of the noise.

    Returns:
        Sum over pixels, mean over the batch: a tensor of shape (), through which gradients flow.
    """
    raise NotImplementedError("Exercise 1.5: denoising_loss")


# --- 1.6 train_step (medium, 9 minutes) ---------------------------------------------
# read: notes/01 section 8


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    """One step of gradient descent on `reconstruction_loss` for one batch.

    The optimiser makes one step, with the gradient of this batch's loss alone: whatever is in the
    parameters' `.grad` before the call must not matter. Train or eval mode stay as they are.

    Args:
        model: Has `encode` (images to codes) and `decode` (codes to logits), as in 1.2.
        optimizer: Holds the model's parameters.
        x: Images (B, C, H, W) in [0, 1].

    Returns:
        The loss before the step, in nats, as a float.
    """
    raise NotImplementedError("Exercise 1.6: train_step")


# --- 1.7 mean_error (hard, 10 minutes) ----------------------------------------------
# read: notes/01 section 8


def mean_error(model: nn.Module, batches: Iterable[Tensor]) -> float:
    """Mean squared error per pixel over all images of all batches, without touching the model.

    Every image counts the same, in whichever batch it comes. The model is in eval mode while it is
    measured, and afterwards in the mode it was in; no gradient graph is built (torch.no_grad).

    Args:
        model: Calling it maps images (B, C, H, W) to reconstructions (B, C, H, W).
        batches: Images (B, C, H, W), with B differing from batch to batch; can be walked once.

    Returns:
        The mean of (model(x) - x)^2 over every pixel of every image, as a float.
    """
    raise NotImplementedError("Exercise 1.7: mean_error")


# --- 1.8 anomaly_scores (easy, 6 minutes) -------------------------------------------
# read: notes/01 section 6.3


def anomaly_scores(model: nn.Module, x: Tensor) -> Tensor:
    """How badly each image is drawn: its squared error, (B,); notes/01 eq. (1.38).

    Summed over the pixels of each image; higher means stranger. An image's score does not depend on
    the other images: the model is in eval mode while it is asked, and then in the mode it was in.

    Args:
        model: Calling it maps images (B, C, H, W) to reconstructions (B, C, H, W).
        x: Images (B, C, H, W).

    Returns:
        (B,), also for B = 1, without a gradient graph.
    """
    raise NotImplementedError("Exercise 1.8: anomaly_scores")


# --- 1.9 pca (hard, 9 minutes) ------------------------------------------------------
# read: notes/01 section 6.2


def pca(x: Tensor, latent_dim: int) -> tuple[Tensor, Tensor]:
    """Principal components: the L directions along which points spread most; notes/01 eq. (1.35).

    Computed from all points, exactly (no sampling), whether N or D is larger.

    Args:
        x: Points (N, D).
        latent_dim: L, at most min(N - 1, D).

    Returns:
        mean: (D,), the mean of the points, of x's dtype like the components.
        components: (L, D), orthonormal rows, in order of falling variance; each row's sign is free.
    """
    raise NotImplementedError("Exercise 1.9: pca")


# --- 1.10 pca_reconstruct (easy, 3 minutes) -----------------------------------------
# read: notes/01 section 6.2


def pca_reconstruct(x: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """Project points onto the plane through `mean` that the components span; notes/01 eq. (1.35).

    Args:
        x: Points (N, D), not necessarily those that gave mean and components.
        mean: (D,).
        components: (L, D), orthonormal rows.

    Returns:
        The nearest points (N, D) in that plane, not clipped.
    """
    raise NotImplementedError("Exercise 1.10: pca_reconstruct")
