# source: ../03_vae_exercise.py is made from this file by `python -m exercises build`
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
# hint: If eps is a draw of N(0, 1), which mean and which standard deviation has a + b * eps? And
#   which standard deviation belongs to a log-variance of log 4?
# hint: `torch.randn_like` draws eps, which depends on no parameter. Write z as a function of mu,
#   logvar and eps; `Normal(...).rsample()` is such a function, and `.sample()` is not.
# hint: mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
# why: The encoder is trained by how good its z was, so z must be a differentiable function of mu
#   and logvar. All chance is moved into eps, whose distribution has no parameter: dz/dmu is 1 and
#   dz/dlogvar is (z - mu) / 2. The half is there because the network speaks of the variance:
#   sqrt(exp(logvar)) = exp(logvar / 2).
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
    # answer
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    # end


# --- 3.2 kl_to_standard_normal (easy, 10 minutes) -----------------------------------
# hint: What should it cost to be just the prior, mu = 0 and logvar = 0? And what is the mean over
#   q of log q(z) - log p(z), for one dimension?
# hint: The mean of z^2 under q is mu^2 + exp(logvar), and that of (z - mu)^2 / exp(logvar) is 1.
#   The constants log 2 pi of the two densities cancel. Over which dimension do you sum?
# hint: 0.5 * (mu.square() + logvar.exp() - 1 - logvar), summed over dim 1.
# why: KL = E_q[log q - log p] = 0.5 (mu^2 + sigma^2 - 1 - log sigma^2) for one dimension. Latent
#   dimensions are independent under both q and p, so their terms add up: a mean would be L times
#   too small. Forgetting the half is a beta-VAE with beta = 2 that nobody asked for. In logvar,
#   the KL is smooth on the whole real line, with its minimum at 0.
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
    # answer
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(dim=1)
    # end


# --- 3.3 bernoulli_nll (easy, 8 minutes) --------------------------------------------
# hint: How surprising is a pixel x, if it is a coin that shows 1 with probability sigmoid(logit)?
#   And what becomes of log(1 - sigmoid(1000)) in floating point?
# hint: `F.binary_cross_entropy_with_logits` never forms the probability. Which `reduction` keeps
#   the images apart, and which dimensions remain to be summed?
# hint: F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(dim=1)
# why: Pixels are independent given z, so log p(x|z) is a sum over pixels. A mean is 784 times
#   smaller beside the same KL, and the usual cure, "kld_weight 0.00025", is just that mistake
#   undone by hand. The reduction over the batch is left to the caller: evaluation wants one number
#   for each image, and several bounds need them apart.
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
    # answer
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return nll.flatten(1).sum(dim=1)
    # end


# --- 3.4 gaussian_nll (medium, 12 minutes) ------------------------------------------
# hint: The density of a normal has a factor in front of the exponential. What is left of it after
#   -log, and how often does it occur in an image of P pixels?
# hint: With sigma = exp(log_sigma), one pixel costs half the squared miss in units of sigma, plus
#   log sigma, plus half of log(2 pi). Do not take `log_sigma` for a log-variance.
# hint: nll = 0.5 * ((x - mean) / log_sigma.exp()).square() + log_sigma + 0.5 * math.log(2 *
#   math.pi), then flatten(1) and a sum over dim 1.
# why: With the full density, sigma can be learned: its slope is zero where sigma^2 is the mean
#   squared error, so the data itself sets the weight between reconstruction and KL. Squared error
#   alone fixes sigma at an arbitrary value, and every such choice is a hidden beta. log_sigma
#   belongs to every pixel: counted once an image, its pull is P times too weak and sigma shrinks
#   to nothing. The value may be negative: a density can exceed 1.
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
    # answer
    misses = (x - mean) / log_sigma.exp()
    nll = 0.5 * misses.square() + log_sigma + 0.5 * math.log(2 * math.pi)
    return nll.flatten(1).sum(dim=1)
    # end


# --- 3.5 Encoder (medium, 14 minutes) -----------------------------------------------
# hint: A posterior narrower than the prior has a variance below 1. Which sign has its logarithm,
#   and which last layers can produce that sign?
# hint: `nn.Sequential` of `nn.Flatten`, `nn.Linear` and a nonlinearity such as `nn.SiLU`, and a
#   last `nn.Linear` with 2 L outputs, of which `chunk` makes two halves. Along which dimension?
# hint: mu, logvar = self.net(x).chunk(2, dim=1), where net ends in nn.Linear(hidden_dim, 2 *
#   latent_dim) with nothing after it.
# why: The network gives log sigma^2 just because every real number is a legal value of it: no
#   activation has to force positivity. A softplus there keeps sigma at 1 or more, wider than the
#   prior, so that z can say almost nothing. A ReLU does the same, and has no slope where it is
#   0. Sharing all but the last layer is a choice; two networks would be right as well.
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
        # answer
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(image_shape), hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, 2 * latent_dim),  # mu, then logvar
        )
        # end

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and logvar, each (B, L), of images x (B, C, H, W) in [0, 1]."""
        # answer
        mu, logvar = self.net(x).chunk(2, dim=1)
        return mu, logvar
        # end


# --- 3.6 negative_elbo (hard, 15 minutes) -------------------------------------------
# hint: Which z should the decoder get: the most likely one, or one that q(z|x) really produces?
#   And which of the two terms is paid by beta?
# hint: You have `reparameterize`, `kl_to_standard_normal` and `bernoulli_nll`. Follow one batch
#   from model.encode to model.decode. Each of the three gives or takes one row for each image.
# hint: mu, logvar = model.encode(x); logits = model.decode(reparameterize(mu, logvar)); return
#   bernoulli_nll(logits, x) + beta * kl_to_standard_normal(mu, logvar)
# why: log p(x) >= E_q[log p(x|z)] - KL(q || p). One draw estimates the expectation without bias,
#   and the KL is exact. Decoding mu in place of a draw would make the noise free of charge: the
#   encoder would learn that sigma does not matter, and the value would be no bound at all. With
#   beta = 1 the mean of the result is at least -log p(x); with beta > 1 it still is, but a looser
#   one; with beta < 1 it may not be.
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
    # answer
    mu, logvar = model.encode(x)
    z = reparameterize(mu, logvar)
    return bernoulli_nll(model.decode(z), x) + beta * kl_to_standard_normal(mu, logvar)
    # end


# --- 3.7 sample_prior (easy, 9 minutes) ---------------------------------------------
# hint: From which distribution was z drawn, according to the model, before any image existed? And
#   what does decode return: a picture?
# hint: `torch.randn(n, latent_dim)`, `model.decode`, `sigmoid`. Look at `model.eval()`,
#   `torch.no_grad()`, and `model.training`, which tells what to restore.
# hint: was = model.training; model.eval(); inside torch.no_grad(): x = model.decode(torch.randn(n,
#   latent_dim)).sigmoid(); then model.train(was); return x.
# why: The encoder is not needed: it was there to train the decoder. The KL has kept q(z|x) near
#   N(0, I), so draws of the prior land where the decoder has learned to draw. What comes back are
#   the means of the pixels, which look smoother than samples of p(x|z), where each pixel would
#   toss its own coin: figures of VAEs show means, and should say so.
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
    # answer
    was_training = model.training
    model.eval()
    with torch.no_grad():
        x = model.decode(torch.randn(n, latent_dim)).sigmoid()
    model.train(was_training)
    return x
    # end


# --- 3.8 interpolate (medium, 10 minutes) -------------------------------------------
# hint: A straight line between two pictures passes through double exposures. Between which two
#   points should the line run so that every point on it is a picture?
# hint: `model.encode` takes a batch: what does `torch.stack([x_start, x_end])` make? The shares of
#   the end are `torch.linspace(0, 1, steps)`: which shape must they have to multiply (L,)?
# hint: mu, _ = model.encode(torch.stack([x_start, x_end])); share = torch.linspace(0, 1,
#   steps)[:, None]; z = (1 - share) * mu[0] + share * mu[1]; decode it, take the sigmoid, in eval
#   mode and without a graph.
# why: mu is the centre of what the encoder believes, so the ends are the model's best
#   reconstructions and the same call gives the same film; a draw would make both ends tremble.
#   Every z on the way is decoded, so each frame is a picture in its own right, which is what
#   "the latent space is smooth" means. Averaging the two decoded ends would prove nothing.
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
    # answer
    was_training = model.training
    model.eval()
    with torch.no_grad():
        mu, _ = model.encode(torch.stack([x_start, x_end]))
        share = torch.linspace(0, 1, steps)[:, None]  # (steps, 1)
        x = model.decode((1 - share) * mu[0] + share * mu[1]).sigmoid()
    model.train(was_training)
    return x
    # end


# --- 3.9 iwae_bound (medium, 10 minutes) --------------------------------------------
# hint: The mean of the weights w estimates p(x). You have their logarithms, near -1000: what does
#   exp(-1000) give, and what does its logarithm give then?
# hint: `torch.logsumexp` takes the largest out before it exponentiates. It gives the logarithm of
#   a sum. How do you get from a sum to a mean, when everything is a logarithm?
# hint: torch.logsumexp(log_w, dim=0) - math.log(len(log_w))
# why: The mean of w is an unbiased estimate of p(x), and by Jensen its logarithm is too low on
#   average, the less so the more draws there are. The mean has to be taken inside the logarithm:
#   the mean of log w is merely the ELBO again, estimated more exactly. Each image has its own
#   maximum, since images differ by hundreds of nats.
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
    # answer
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))
    # end


# --- 3.10 log_importance_weights (hard, 14 minutes) ---------------------------------
# hint: If z is drawn from q(z|x), by what must p(x, z) be divided so that the mean over the draws
#   is p(x), the integral over z? And of how many z do you need the pictures?
# hint: Three logarithms: p(x|z) by `bernoulli_nll`, p(z) and q(z|x) by `Normal(...).log_prob` and
#   a sum over L. Decode all k * B draws as one batch: in which order must x be repeated to match?
# hint: mu and logvar repeated k times are (k * B, L), which go with x.repeat(k, 1, 1, 1); draw z,
#   add -bernoulli_nll(model.decode(z), x) + log p(z) - log q(z|x), the last two summed over L, and
#   view(k, B) at the end.
# why: E_q[p(x, z) / q(z|x)] is the integral of p(x, z) over z, which is p(x), whatever q is: q
#   decides only how much the weights vary. If q is the true posterior they are all equal to p(x).
#   The closed-form KL is of no use here: it is the mean over all z, and a weight belongs to one.
#   Draws are made by reparameterize, so that 3.9 of these weights is a loss for both halves.
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
    # answer
    mu, logvar = (v.repeat(k, 1) for v in model.encode(x))  # (k * B, L): all images, k times
    z = reparameterize(mu, logvar)
    log_likelihood = -bernoulli_nll(model.decode(z), x.repeat(k, 1, 1, 1))  # (k * B,)
    log_prior = Normal(0.0, 1.0).log_prob(z).sum(dim=1)
    log_q = Normal(mu, torch.exp(0.5 * logvar)).log_prob(z).sum(dim=1)
    return (log_likelihood + log_prior - log_q).view(k, len(x))
    # end
