# source: ../01_autoencoder_exercise.py is made from this file by `python -m exercises build`
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
# hint: Which numbers of a network does the optimiser change, and which are only kept along?
# hint: Look up `nn.Module.parameters`, `Tensor.numel` and `requires_grad`. What does
#   `parameters()` do with a matrix that two layers share?
# hint: A sum over `model.parameters()` of `p.numel()`, leaving out each p that is frozen.
# why: `parameters()` yields every parameter of every layer inside, a shared one once, and no
#   buffers such as the running mean of a batch norm, which are part of the state but are not
#   learned. Counting `state_dict()` would count those, and shared weights twice.
# read: notes/01 section 8


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that training changes.

    Every element of every parameter of the model and of the modules inside it counts one. A frozen
    parameter (`requires_grad` is False) does not count, a parameter that several modules share
    counts once, and buffers, such as a batch norm's running mean, do not count.

    Returns:
        The count as an int.
    """
    # answer
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
    # end


# --- 1.2 Autoencoder (medium, 15 minutes) -------------------------------------------
# hint: Follow one picture: which shape does it have after each step, and where do only L numbers
#   of it remain?
# hint: `nn.Sequential` with `nn.Flatten`, `nn.Linear`, `nn.ReLU` or `nn.SiLU` goes down;
#   `nn.Linear` and `nn.Unflatten(1, image_shape)` come back. Which of encode, decode and forward
#   should hold the sigmoid, if decode returns logits?
# hint: self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(prod(image_shape), hidden_dim),
#   nn.SiLU(), nn.Linear(hidden_dim, latent_dim)); the decoder is its mirror image, ending in
#   nn.Unflatten; and forward returns self.decode(self.encode(x)).sigmoid().
# why: The code is the only way from x to x_hat, so what survives is what L numbers can say. There
#   is no activation after the last encoder layer, since a code with a ReLU could not be negative
#   and half of its room would be lost. The decoder returns logits because a loss can be computed
#   from logits exactly, where sigmoid(30) is rounded to 1 and its logarithm is lost; only
#   forward, which shows pictures, applies the sigmoid. Without a nonlinearity the best the
#   network could do is PCA.
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
        # answer
        pixels = prod(image_shape)
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, pixels),
            nn.Unflatten(1, image_shape),
        )
        # end

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, L) of images x (B, C, H, W) in [0, 1]."""
        # answer
        return self.encoder(x)
        # end

    def decode(self, z: Tensor) -> Tensor:
        """Logits (B, C, H, W) of the pixels, from codes z (B, L)."""
        # answer
        return self.decoder(z)
        # end

    def forward(self, x: Tensor) -> Tensor:
        """Reconstructions (B, C, H, W) in [0, 1] of images x (B, C, H, W)."""
        # answer
        return self.decode(self.encode(x)).sigmoid()
        # end


# --- 1.3 reconstruction_loss (medium, 8 minutes) ------------------------------------
# hint: If a pixel is a coin that shows 1 with probability sigmoid(logit), how surprising is x?
#   And what becomes of log(sigmoid(logit)) when the logit is -200?
# hint: `F.binary_cross_entropy_with_logits` never forms the probability. Its `reduction` is the
#   mean over everything unless you say otherwise: which two reductions does the contract ask for?
# hint: F.binary_cross_entropy_with_logits(logits, x, reduction="none"), then flatten(1), a sum
#   over dim 1, and a mean over what is left.
# why: Pixels are independent given z, so their log-probabilities add up: a sum. Images are
#   independent draws from the data, and the loss estimates an expectation over them: a mean. A
#   mean over pixels would be 784 times smaller, which nobody notices here, but in the VAE, where
#   a KL that is summed stands beside it, it silently weights that KL 784 times too high.
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
    # answer
    per_pixel = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return per_pixel.flatten(1).sum(dim=1).mean()
    # end


# --- 1.4 add_noise (easy, 5 minutes) ------------------------------------------------
# hint: The clean picture is needed again as the target. Does your line leave it as it was? And is
#   the noise of one pixel independent of the next one's?
# hint: `torch.randn_like` draws one N(0, 1) number for each element. What does multiplying such a
#   number by sigma do to its standard deviation, and what to its variance?
# hint: x + sigma * torch.randn_like(x). Note that `x += ...` would be something else.
# why: randn_like has x's shape, dtype and device, so every pixel gets its own draw. `+` builds a
#   new tensor, `+=` would write into the caller's picture, which is then no clean target any
#   more. Nothing is clipped to [0, 1]: clipping would make the noise depend on the picture, and
#   the denoiser's link to the score holds for Gaussian noise only.
# read: notes/01 section 6.4


def add_noise(x: Tensor, sigma: float) -> Tensor:
    """x + sigma * eps with eps ~ N(0, I), one draw for every pixel; notes/01 eq. (1.40).

    Args:
        x: Images (B, C, H, W); the caller's tensor stays as it was.
        sigma: Standard deviation of the noise, at least 0.

    Returns:
        The noisy images (B, C, H, W), of x's dtype, not clipped; with sigma = 0 equal to x.
    """
    # answer
    return x + sigma * torch.randn_like(x)
    # end


# --- 1.5 denoising_loss (medium, 7 minutes) -----------------------------------------
# hint: Two pictures are around, the clean and the noisy one. Which does the encoder see, and
#   against which is the answer graded?
# hint: You have `add_noise` and `reconstruction_loss`. Do you need what `model(x)` returns, or
#   the logits that `model.decode` returns?
# hint: logits = model.decode(model.encode(add_noise(x, sigma))), and the target is x.
# why: If the target were noisy, the best answer would be to copy, noise and all. With the clean
#   target, copying is wrong, and the network must know what pictures look like to guess which
#   part of its input is noise.
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
    # answer
    logits = model.decode(model.encode(add_noise(x, sigma)))
    return reconstruction_loss(logits, x)
    # end


# --- 1.6 train_step (medium, 9 minutes) ---------------------------------------------
# hint: `backward()` adds to what is in `.grad`. What is in there when your function begins?
# hint: Four lines in the right order: the loss, `optimizer.zero_grad()`, `loss.backward()`,
#   `optimizer.step()`. And how does a tensor become a plain number?
# hint: loss = reconstruction_loss(model.decode(model.encode(x)), x); zero_grad, backward, step;
#   return loss.item()
# why: Gradients add up by design, so that a large batch can be split into several backward
#   passes; a step that forgets zero_grad moves along the sum of all gradients so far. `item()`
#   returns a number: keeping the tensor would keep the graph of every step alive, which is how
#   memory fills up.
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
    # answer
    loss = reconstruction_loss(model.decode(model.encode(x)), x)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    # end


# --- 1.7 mean_error (hard, 10 minutes) ----------------------------------------------
# hint: A batch of 1 and a batch of 100 have the errors a and b. What is the mean error of the 101
#   images? And what must not happen to the model while it is being measured?
# hint: Add up squared errors and pixels, and divide once, at the end. `model.eval()`,
#   `torch.no_grad()`, and `model.training`, which tells what to restore.
# hint: was = model.training; model.eval(); inside torch.no_grad(): total += (model(x) -
#   x).square().sum() and count += x.numel() for each x; then model.train(was); return total /
#   count as a float.
# why: The last batch is usually smaller, and a mean of means would give its images more weight.
#   In training mode dropout would disturb the outputs, and batch norm would use the batch's own
#   statistics and learn from the test set. Restoring the mode keeps the function free of side
#   effects: after a test in mid-training, training goes on as before.
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
    # answer
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for x in batches:
            total += (model(x) - x).square().sum().item()
            count += x.numel()
    model.train(was_training)
    return total / count
    # end


# --- 1.8 anomaly_scores (easy, 6 minutes) -------------------------------------------
# hint: One number for each image. Which dimensions have to go, and which one has to stay, even if
#   it is 1?
# hint: `flatten(1)` makes (B, C*H*W) of (B, C, H, W). Which mode of the model makes an image's
#   score independent of its neighbours in the batch?
# hint: In eval mode and without gradients: (model(x) - x).square().flatten(1).sum(dim=1); then
#   the mode as it was.
# why: An autoencoder draws well what it has seen often; a large error says "never seen". The
#   score belongs to one image, so nothing may be averaged over the batch. It is no probability: a
#   simple picture, such as a 1, is drawn well even if training never showed one.
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
    # answer
    was_training = model.training
    model.eval()
    with torch.no_grad():
        scores = (model(x) - x).square().flatten(1).sum(dim=1)
    model.train(was_training)
    return scores
    # end


# --- 1.9 pca (hard, 9 minutes) ------------------------------------------------------
# hint: Along which directions do the points spread most? From which point do you measure the
#   spread?
# hint: `torch.linalg.svd(..., full_matrices=False)` returns U, S and Vh, with falling S. Which of
#   them has D columns? Are the directions its rows or its columns?
# hint: mean = x.mean(dim=0); the directions are the first latent_dim rows of Vh, from the SVD of
#   x - mean.
# why: With x - mean = U S Vh, the covariance is V S^2 Vh / N, so the rows of Vh are its
#   eigenvectors, and S^2 / N the variances along them, largest first. Eckart and Young proved
#   that no other L directions lose less. Without centring, the first direction would merely point
#   at the mean.
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
    # answer
    mean = x.mean(dim=0)
    _, _, components = torch.linalg.svd(x - mean, full_matrices=False)
    return mean, components[:latent_dim]
    # end


# --- 1.10 pca_reconstruct (easy, 3 minutes) -----------------------------------------
# hint: The code of a point is where it lies along each direction, seen from the mean. How do you
#   get back from there?
# hint: Down with `components.T`, up with `components`. What had to be taken away before, and must
#   be put back after?
# hint: z = (x - mean) @ components.T is (N, L); mean + z @ components is (N, D).
# why: This is a linear autoencoder: a matrix down, its transpose up. The rows are orthonormal, so
#   components.T @ components is the orthogonal projection onto the plane through the mean, and
#   doing it twice changes nothing more.
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
    # answer
    z = (x - mean) @ components.T  # (N, L)
    return mean + z @ components
    # end
