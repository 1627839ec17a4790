"""Exercise 4, diffusion models: add noise, learn to predict it, and take it out step by step.

Replace each `raise NotImplementedError(...)` by your answer, then ask for an opinion:

    python -m exercises check 4.1    is it right, and if not, which mistake is it?
    python -m exercises hint 4.1     a question; again: where to look; again: nearly the line
    python -m exercises              what you have solved, and what is next

Tasks are graded one by one, and what a task builds on is supplied: take them in any order, and one
bug is reported once. Any right answer passes, however it is written; add imports and functions of
your own as you like. A docstring is a contract: shapes, ranges and reductions are what it says.

    q(x_t | x_0) = N( sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I ),    t = 0 ... T-1

Time:   t = 0 has the least noise and t = T-1 the most; clean data, one step before t = 0, has an
alpha_bar of 1. `alpha_bar` is (T,), strictly falling, in (0, 1): alpha_bar[t] belongs to t. In
every contract alpha_t = alpha_bar_t / alpha_bar_{t-1} and beta_t = 1 - alpha_t.
Sizes:  x is (B, C, H, W) for images or (B, D) for points: answers must work for both, for B = 1,
and where B is equal to another size. x_0 is in [-1, 1]. t is (B,) int64: each image has its own.
Models: `eps_hat = model(x_t, t)`, of the shape of x_t, predicts the noise eps in x_t.
Eleven tasks, about 140 minutes. The theory is in notes/04_diffusion_probabilistic_models.md, and
code_examples/04_diffusion_models.py is what the pieces grow into.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# --- 4.1 alpha_bar_from_beta (easy, 6 minutes) --------------------------------------
# read: notes/04 section 2.2


def alpha_bar_from_beta(beta: Tensor) -> Tensor:
    """alpha_bar[t], the share of x_0's variance that is left after the steps 0, 1, ..., t.

    alpha_bar[t] = (1 - beta[0]) (1 - beta[1]) ... (1 - beta[t]),  step t included

    Args:
        beta: (T,), the variance of the noise that each step adds, in (0, 1); it stays as it was.

    Returns:
        (T,), of beta's dtype, also for T = 1; exact to rounding for any T.
    """
    raise NotImplementedError("Exercise 4.1: alpha_bar_from_beta")


# --- 4.2 q_sample (easy, 10 minutes) ------------------------------------------------
# read: notes/04 section 2.2


def q_sample(x_0: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t, which is x_0 with the noise eps at the level of t, in one go.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,  with its own t for each image

    Nothing is drawn, nothing is clamped.

    Args:
        x_0: Data (B, C, H, W) or (B, D) in [-1, 1].
        t: (B,) int64 in 0 ... T-1.
        eps: Noise of the shape of x_0.
        alpha_bar: (T,); all arguments stay as they were.

    Returns:
        x_t, of the shape of x_0.
    """
    raise NotImplementedError("Exercise 4.2: q_sample")


# --- 4.3 diffusion_loss (medium, 16 minutes) ----------------------------------------
# read: notes/04 section 3.4


def diffusion_loss(model: nn.Module, x_0: Tensor, alpha_bar: Tensor) -> Tensor:
    """The simple loss of each image: the mean squared miss of eps_hat = model(x_t, t).

    The miss is eps_hat - eps, where eps is the noise in x_t. Every image gets a t of its own,
    uniform on all of 0 ... T-1, and a noise eps ~ N(0, I) of its own; x_t is made of both by
    `q_sample`. All draws are new at each call. The loss of an image is the mean over its numbers
    (C, H, W or D), with no weight that depends on t. Train or eval mode stay as they are.

    Args:
        model: `model(x_t, t)` gives eps_hat of the shape of x_t, for t (B,) int64.
        x_0: Data (B, C, H, W) or (B, D) in [-1, 1]; it stays as it was.
        alpha_bar: (T,).

    Returns:
        (B,), also for B = 1; gradients flow to the model.
    """
    raise NotImplementedError("Exercise 4.3: diffusion_loss")


# --- 4.4 predict_x0 (easy, 8 minutes) -----------------------------------------------
# read: notes/04 section 3.3


def predict_x0(x_t: Tensor, t: Tensor, eps_hat: Tensor, alpha_bar: Tensor) -> Tensor:
    """The x_0 that would have given x_t, if eps_hat were the noise in it: `q_sample` undone.

    Nothing is clamped: the result may lie outside [-1, 1].

    Args:
        x_t: (B, C, H, W) or (B, D).
        t: (B,) int64 in 0 ... T-1.
        eps_hat: Of the shape of x_t.
        alpha_bar: (T,); all arguments stay as they were.

    Returns:
        The estimate of x_0, of the shape of x_t; gradients flow to eps_hat and x_t.
    """
    raise NotImplementedError("Exercise 4.4: predict_x0")


# --- 4.5 posterior_mean_variance (hard, 18 minutes) ---------------------------------
# read: notes/04 section 2.4


def posterior_mean_variance(
    x_0: Tensor, x_t: Tensor, t: Tensor, alpha_bar: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(x_{t-1} | x_t, x_0): the Gaussian that undoes a step, given x_0.

    At t = 0, x_{t-1} is the clean data: the mean is x_0 and the variance exactly 0, with
    alpha_bar_{-1} = 1. Nothing is clamped.

    Args:
        x_0: (B, C, H, W) or (B, D).
        x_t: Of the shape of x_0.
        t: (B,) int64 in 0 ... T-1.
        alpha_bar: (T,); all arguments stay as they were.

    Returns:
        The mean, of the shape of x_0, and the variance (B,), one number for each image.
    """
    raise NotImplementedError("Exercise 4.5: posterior_mean_variance")


# --- 4.6 p_sample (hard, 16 minutes) ------------------------------------------------
# read: notes/04 section 6.1


def p_sample(model: nn.Module, x_t: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
    """Draw x_{t-1} from x_t: one step of ancestral sampling, with its own t for each image.

    x_0 is estimated from the model's noise and clamped to [-1, 1]; then x_{t-1} is a draw of
    q(x_{t-1} | x_t, x_0), whose mean and variance 4.5 gives. An image with t = 0 gets no noise: its
    result is the clamped estimate of x_0. All other images get independent noise for every number,
    new at each call. Train or eval mode and gradients are the caller's business.

    Args:
        model: `model(x_t, t)` gives eps_hat of the shape of x_t, for t (B,) int64.
        x_t: (B, C, H, W) or (B, D).
        t: (B,) int64 in 0 ... T-1, not always the same for all images.
        alpha_bar: (T,); all tensors stay as they were.

    Returns:
        x_{t-1}, of the shape of x_t; it is not clamped.
    """
    raise NotImplementedError("Exercise 4.6: p_sample")


# --- 4.7 sample (medium, 14 minutes) ------------------------------------------------
# read: notes/04 section 6.1


def sample(model: nn.Module, shape: tuple[int, ...], alpha_bar: Tensor) -> Tensor:
    """New data by ancestral sampling: from N(0, I) through t = T-1, ..., 1, 0 by `p_sample`.

    All images take each step together: the model is called once for every t. It is in eval mode
    meanwhile, and afterwards in the mode it was in; no gradient graph is built. The draws are new
    at each call.

    Args:
        model: `model(x_t, t)` gives eps_hat of the shape of x_t, for t (B,) int64.
        shape: Of the result: (B, C, H, W) or (B, D).
        alpha_bar: (T,).

    Returns:
        x_0 of this shape, in [-1, 1] as the last step gives it.
    """
    raise NotImplementedError("Exercise 4.7: sample")


# --- 4.8 ddim_step (medium, 14 minutes) ---------------------------------------------
# read: notes/04 section 6.2


def ddim_step(x_t: Tensor, t: Tensor, s: Tensor, eps_hat: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_s from x_t without any chance: the same x_0 and the same noise, mixed at the level of s.

    x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) eps_hat,  x_0 = predict_x0(x_t, t, eps_hat)

    s = -1 is the clean data, with alpha_bar_{-1} = 1: there x_s is the estimate of x_0. Samplers
    use s < t with steps of any length; s > t goes back towards the noise. Nothing is clamped.

    Args:
        x_t: (B, C, H, W) or (B, D).
        t: (B,) int64 in 0 ... T-1, where each image is.
        s: (B,) int64 in -1 ... T-1, where it goes.
        eps_hat: Of the shape of x_t.
        alpha_bar: (T,); all arguments stay as they were.

    Returns:
        x_s, of the shape of x_t.
    """
    raise NotImplementedError("Exercise 4.8: ddim_step")


# --- 4.9 classifier_free_guidance (medium, 10 minutes) ------------------------------
# read: notes/04 section 8.2


def classifier_free_guidance(
    model: nn.Module, x_t: Tensor, t: Tensor, y: Tensor, null: int, w: float
) -> Tensor:
    """eps_hat, pushed towards the label y: eps_uncond + w (eps_cond - eps_uncond).

    w = 1 is the prediction for the label y alone, w = 0 the one without a label, w > 1 goes beyond
    the first; every real w is treated by the same formula.

    Args:
        model: `model(x_t, t, y)` gives eps_hat of the shape of x_t, each image by itself.
        x_t: (B, C, H, W) or (B, D).
        t: (B,) int64.
        y: (B,) int64, the labels; it and all other tensors stay as they were.
        null: The label that stands for "no label": model(x_t, t, y) with `null` in all places of y
            is eps_uncond.
        w: The guidance weight.

    Returns:
        The guided eps_hat, of the shape of x_t.
    """
    raise NotImplementedError("Exercise 4.9: classifier_free_guidance")


# --- 4.10 ema_update (easy, 8 minutes) ----------------------------------------------
# read: notes/04 section 4.3


def ema_update(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an exponential moving average of the weights a little way towards them, in place.

    Every parameter, trainable or frozen: ema = decay * ema + (1 - decay) * model. Every buffer is
    copied from the model. No gradient graph is built; `requires_grad` and train or eval mode stay
    as they are.

    Args:
        ema: The average, a module of the same kind as the model; its tensors are changed.
        model: The model in training; it stays as it was, and shares no memory with the average.
        decay: In [0, 1], such as 0.999; 0 makes the average equal to the model.
    """
    raise NotImplementedError("Exercise 4.10: ema_update")


# --- 4.11 TimeConditionedNet (hard, 20 minutes) -------------------------------------
# read: notes/04 section 4.2


class TimeConditionedNet(nn.Module):
    """A network for points that predicts the noise in x_t and really uses t.

        eps_hat = net(x_t, t)    (B, D), any real number: no activation after the last layer

    The embedding of t and x_t meet before a nonlinearity, so that t changes how x_t is treated, and
    does not merely add something to the answer. At least one hidden layer with a nonlinearity lies
    between x_t and eps_hat; the layers are up to you, and no parameter may be idle. Every row of a
    batch is treated by itself, with its own t.

    Args:
        data_dim: D.
        embed_dim: E, even and at least 4: the size of the embedding of t.
        hidden_dim: Units of the hidden layers, if you use it.
    """

    def __init__(self, data_dim: int, embed_dim: int = 32, hidden_dim: int = 64) -> None:
        super().__init__()
        raise NotImplementedError("Exercise 4.11: TimeConditionedNet.__init__")

    def embed(self, t: Tensor) -> Tensor:
        """Waves of t, (B, E) float32: sin(f t) and cos(f t) of E/2 frequencies f, in any order.

        The frequencies are fixed and fall in equal ratios from 1 (the fastest) to about 1/10000. t
        is (B,) int64, taken as it is: it is not divided by T, and reaches up to 1000.
        """
        raise NotImplementedError("Exercise 4.11: TimeConditionedNet.embed")

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """eps_hat (B, D) for x_t (B, D) and t (B,) int64."""
        raise NotImplementedError("Exercise 4.11: TimeConditionedNet.forward")
