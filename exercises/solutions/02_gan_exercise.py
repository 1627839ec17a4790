# source: ../02_gan_exercise.py is made from this file by `python -m exercises build`
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
# hint: From which distribution does the generator get its only input, and how many numbers does
#   one image need?
# hint: `torch.rand` is uniform on [0, 1], `torch.randn` is normal. Which shape has one row for
#   each image?
# hint: torch.randn(n, latent_dim)
# why: All chance in a GAN is in z: the generator itself is a fixed function that bends N(0, I) into
#   the distribution of its images. N(0, I) is a convention, but training and sampling must agree on
#   it. Drawing from torch's own generator makes a run repeatable by torch.manual_seed.
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
    # answer
    return torch.randn(n, latent_dim)
    # end


# --- 2.2 discriminator_loss (easy, 12 minutes) --------------------------------------
# hint: A classifier says "real" with probability sigmoid(logit). What is its surprise if the image
#   was real, and what if it was fake?
# hint: 1 - sigmoid(a) is sigmoid(-a), and -log sigmoid(a) is softplus(-a).
#   `F.binary_cross_entropy_with_logits` with targets 1 and 0 is the same. Which mean is taken, if
#   there are more fakes than real images?
# hint: F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
# why: This is the cross-entropy of a classifier that sees real and fake images equally often,
#   times 2: the minus of the value V(D, G) of the game. At an undecided discriminator it is
#   2 log 2 = 1.386, a number to know by heart when one looks at curves. Computing from logits
#   keeps what the sigmoid would round away: a discriminator that is sure soon has logits of +-50.
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
    # answer
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    # end


# --- 2.3 smoothed_discriminator_loss (medium, 10 minutes) ---------------------------
# hint: With target 0.9, which probability should the discriminator give to a real image, and what
#   happens to a logit that goes beyond it?
# hint: The cross-entropy with target t is -t log s - (1 - t) log(1 - s): both logarithms count.
#   Which of the two batches keeps its target?
# hint: F.binary_cross_entropy_with_logits(real_logits, torch.full_like(real_logits, 1 -
#   smoothing)) + F.softplus(fake_logits).mean()
# why: The best real logit is now finite, log((1 - smoothing) / smoothing), so a discriminator that
#   is ahead does not become surer and surer, and its gradients stay useful. The fake target
#   remains 0: above 0, the best discriminator would call fakes a little real just where they are
#   dense and no real image is near, and the generator would have less reason to move away.
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
    # answer
    targets = torch.full_like(real_logits, 1 - smoothing)
    real = F.binary_cross_entropy_with_logits(real_logits, targets)
    return real + F.softplus(fake_logits).mean()
    # end


# --- 2.4 generator_loss (easy, 10 minutes) ------------------------------------------
# hint: Early on every fake is recognised: its logit is -10. How steep is log(1 - sigmoid) there,
#   and how steep is -log sigmoid?
# hint: It is the cross-entropy of the fakes with the label that the generator wishes for. Which is
#   that? `softplus` or `binary_cross_entropy_with_logits` computes it from the logit.
# hint: F.softplus(-fake_logits).mean()
# why: In the game as written the generator minimises log(1 - D), whose slope along the logit is
#   -sigmoid(logit): 0.00005 at a logit of -10, so a generator that is bad learns nothing. The
#   non-saturating loss has the slope -(1 - sigmoid(logit)): nearly -1 just there. Both have the
#   same fixed point, and both push each logit up; they differ in how hard.
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
    # answer
    return F.softplus(-fake_logits).mean()
    # end


# --- 2.5 down_block (medium, 12 minutes) --------------------------------------------
# hint: A convolution with kernel K, stride 2 and padding P makes (H + 2P - K) // 2 + 1 rows of H.
#   Which K and P give H / 2 for every even H, and look at every pixel?
# hint: `nn.Conv2d`, `nn.BatchNorm2d`, `nn.LeakyReLU`, in an `nn.Sequential`. Name the arguments
#   after the second: what is the second one of nn.BatchNorm2d?
# hint: nn.Sequential(nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1,
#   bias=False), nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2))
# why: The stride lets the network learn how to make an image smaller, where pooling fixes it. A
#   bias before a batch norm is subtracted again at once, so it is left out. Leaky, because the
#   generator learns from gradients that pass through the discriminator: a ReLU would stop them
#   wherever a unit is off. `nn.BatchNorm2d(c, 0.8)` sets eps, not momentum, to 0.8: activations of
#   variance 0.1 would then be divided by 0.95 in place of 0.32, and hardly be normalised.
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
    # answer
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.LeakyReLU(0.2),
    )
    # end


# --- 2.6 discriminator_step (medium, 15 minutes) ------------------------------------
# hint: backward() follows the graph to its very beginning. Where does the graph of
#   discriminator(generator(z)) begin, and where should it?
# hint: `discriminator_loss` is there. `torch.no_grad()` or `.detach()` makes the fake images a
#   constant. What is in the discriminator's `.grad` if a generator step came before?
# hint: fake = generator(z).detach(); loss = discriminator_loss(discriminator(real),
#   discriminator(fake)); then zero_grad, backward, step, and return loss.item()
# why: In its own step the discriminator takes the fakes as given. Without detach its loss also
#   fills the generator's .grad, with gradients that make the fakes easier to recognise; they wait
#   there for a generator step that forgets zero_grad, and the backward pass through the generator
#   is wasted. zero_grad is needed here for the same reason the other way round: the generator's
#   loss passes through the discriminator, and may have left gradients in it.
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
    # answer
    fake = generator(z).detach()
    loss = discriminator_loss(discriminator(real), discriminator(fake))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    # end


# --- 2.7 generator_step (medium, 14 minutes) ----------------------------------------
# hint: The generator never sees a real image. On which way does it learn what to change, and may
#   that way be cut this time?
# hint: `generator_loss` of what the discriminator says of generator(z). Gradients must flow through
#   the discriminator. Whose parameters does the optimiser hold?
# hint: loss = generator_loss(discriminator(generator(z))); then optimizer.zero_grad(),
#   loss.backward(), optimizer.step(), and return loss.item()
# why: The gradient for an image comes from the discriminator: in which direction would this look
#   more real? So the graph runs through the discriminator, while the step changes the generator
#   only, because its optimiser holds nothing else. backward() also fills the discriminator's
#   .grad on the way. That is harmless, since its own step begins by emptying it.
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
    # answer
    loss = generator_loss(discriminator(generator(z)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    # end


# --- 2.8 critic_loss (easy, 6 minutes) ----------------------------------------------
# hint: The critic is to score real images above fake ones, by as much as its slope allows. Which
#   sign has a quantity that falls while it gets better?
# hint: The Wasserstein distance is the largest mean(real) - mean(fake) of any function of slope at
#   most 1. An optimiser minimises. Is there still a logarithm?
# hint: fake_scores.mean() - real_scores.mean()
# why: Scores are not probabilities: no sigmoid, no logarithm, and only differences mean something.
#   Minus this loss is the critic's estimate of the Wasserstein distance, if its slope is held at 1
#   or below, so that the curve means something: it falls as the fakes get better. Without such a
#   limit the loss would go to minus infinity.
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
    # answer
    return fake_scores.mean() - real_scores.mean()
    # end


# --- 2.9 gradient_penalty (hard, 22 minutes) ----------------------------------------
# hint: One number alpha places a whole image on the line between a real and a fake one. How many
#   alphas does a batch need, and with which shape does one multiply all pixels of its image?
# hint: `torch.autograd.grad(scores.sum(), x_hat, create_graph=True)`: why may the scores be added
#   up, and what would be missing without create_graph? Over which dimensions is the norm taken?
# hint: alpha = torch.rand(len(real), *[1] * (real.ndim - 1)); x_hat = (alpha * real + (1 - alpha)
#   * fake).requires_grad_(); take the gradient of critic(x_hat).sum() with create_graph=True, then
#   (gradient.flatten(1).norm(dim=1) - 1).square().mean()
# why: The best critic has slope 1 almost everywhere on the lines between real and fake images that
#   optimal transport pairs; the penalty asks for it on random lines. An alpha for each pixel would
#   fill the box around the line instead. Scores are added because each depends on its own image
#   only, so that the gradient of the sum is each image's own gradient; a mean would make all slopes
#   B times too small. The penalty trains the critic's weights through its gradient: that is a
#   second derivative, for which create_graph keeps the graph of the first.
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
    # answer
    alpha = torch.rand(len(real), *[1] * (real.ndim - 1), dtype=real.dtype)  # (B, 1, ...)
    x_hat = (alpha * real + (1 - alpha) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    # end


# --- 2.10 count_modes (hard, 15 minutes) --------------------------------------------
# hint: A sample that lies between two modes has a nearest center too. Does it show that the
#   generator knows that mode?
# hint: Distances of all samples to all centers are an (N, M) matrix; `min(dim=1)` gives the nearest
#   center and how far it is. What is NaN <= 3 * std? `unique` counts different values.
# hint: distance, nearest = (samples[:, None] - centers).norm(dim=2).min(dim=1); good = distance <=
#   3 * std; then len(nearest[good].unique()) and good.float().mean().item()
# why: Two numbers, because there are two ways to fail: a generator that has collapsed makes perfect
#   samples of few modes, and one that is blurred has samples near all modes, few of them good. Of a
#   Gaussian in two dimensions 98.9 % lie within 3 std (1 - exp(-4.5)), so 100 % is not what perfect
#   samples reach. NaN compares as False with everything, and so counts as a bad sample by itself.
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
    # answer
    distance, nearest = (samples[:, None] - centers).norm(dim=2).min(dim=1)  # each (N,)
    good = distance <= 3 * std  # False for NaN
    return len(nearest[good].unique()), good.float().mean().item()
    # end
