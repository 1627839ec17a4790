# source: ../04_diffusion_exercise.py is made from this file by `python -m exercises build`
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
# hint: Each step keeps the share 1 - beta of the variance that is data. If two steps keep 0.9 and
#   0.8 of it, how much is left after both?
# hint: `torch.cumprod` multiplies as it goes along. Does its first number already contain the first
#   step?
# hint: torch.cumprod(1 - beta, dim=0)
# why: A step maps x to sqrt(1 - beta) x + sqrt(beta) eps, so the squared factors in front of x_0
#   multiply, and the noises of all steps add up to one Gaussian of variance 1 - alpha_bar. That is
#   why training never walks through the steps: one look at alpha_bar[t] is as good as t + 1 of
#   them. A sum of betas is a good guess for small t and wrong, even negative, later.
# read: notes/04 section 2.2


def alpha_bar_from_beta(beta: Tensor) -> Tensor:
    """alpha_bar[t], the share of x_0's variance that is left after the steps 0, 1, ..., t.

    alpha_bar[t] = (1 - beta[0]) (1 - beta[1]) ... (1 - beta[t]),  step t included

    Args:
        beta: (T,), the variance of the noise that each step adds, in (0, 1); it stays as it was.

    Returns:
        (T,), of beta's dtype, also for T = 1; exact to rounding for any T.
    """
    # answer
    return torch.cumprod(1 - beta, dim=0)
    # end


# --- 4.2 q_sample (easy, 10 minutes) ------------------------------------------------
# hint: x_t has the mean sqrt(alpha_bar_t) x_0 and the variance 1 - alpha_bar_t. By what must eps,
#   which has variance 1, be multiplied?
# hint: `alpha_bar[t]` has shape (B,). PyTorch lines shapes up from the right, so that it would
#   meet the width of the images. Which shape meets the batch, for images and for points?
# hint: a = alpha_bar[t].view(-1, *[1] * (x_0.ndim - 1)); return a.sqrt() * x_0 + (1 - a).sqrt() *
#   eps
# why: The two squared factors add up to 1, so that x_t of data with variance 1 has variance 1 at
#   every t: the network always sees inputs of one size. The shape (B, 1, ..., 1) matters: (B,)
#   multiplies columns of pixels where it should multiply images, and says nothing if B happens to
#   be the width.
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
    # answer
    a = alpha_bar[t].view(-1, *[1] * (x_0.ndim - 1))  # (B, 1, ..., 1)
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps
    # end


# --- 4.3 diffusion_loss (medium, 16 minutes) ----------------------------------------
# hint: The network has to know every t equally well. From which numbers is t drawn, and how many
#   draws does a batch need? And which noise can the network be asked for: any, or the one in x_t?
# hint: `torch.randint(low, high, size)` leaves `high` out. Draw eps once, give it to `q_sample`,
#   and compare it with what the model says. Then average over all dimensions but the first.
# hint: t = torch.randint(len(alpha_bar), (len(x_0),)); eps = torch.randn_like(x_0); miss =
#   model(q_sample(x_0, t, eps, alpha_bar), t) - eps; return miss.square().flatten(1).mean(dim=1)
# why: Each term of the bound on -log p(x) is, for one t, a constant times the expected square of
#   this miss. Dropping the constants gives the simple loss, which spends more effort on large t,
#   where pictures take their shape. A new t for each image makes the gradient of a batch an average
#   over many t, and much less noisy. A network that says nothing, eps_hat = 0, costs about 1.
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
    # answer
    t = torch.randint(len(alpha_bar), (len(x_0),))
    eps = torch.randn_like(x_0)
    eps_hat = model(q_sample(x_0, t, eps, alpha_bar), t)
    return (eps_hat - eps).square().flatten(1).mean(dim=1)
    # end


# --- 4.4 predict_x0 (easy, 8 minutes) -----------------------------------------------
# hint: x_t is a sum of two terms. If you believe eps_hat, which of them do you know, and what has
#   to be undone to get x_0 out of the other one?
# hint: Solve x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps_hat for x_0: first subtract,
#   then divide. Mind the shape of alpha_bar[t], as in 4.2.
# hint: a = alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1)); return (x_t - (1 - a).sqrt() * eps_hat) /
#   a.sqrt()
# why: Knowing x_t, a guess of eps is a guess of x_0 and the other way round. An error in eps_hat is
#   multiplied by sqrt((1 - alpha_bar_t) / alpha_bar_t), which is large for large t: early guesses
#   of x_0 are poor and may lie far outside [-1, 1]. Samplers often clamp them, but that is their
#   own decision.
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
    # answer
    a = alpha_bar[t].view(-1, *[1] * (x_t.ndim - 1))
    return (x_t - (1 - a).sqrt() * eps_hat) / a.sqrt()
    # end


# --- 4.5 posterior_mean_variance (hard, 18 minutes) ---------------------------------
# hint: Two things are known of x_{t-1}: it is x_0 with the noise of t-1, and x_t is one more step
#   away. What is the product of the two Gaussians? And what is x_{t-1} at t = 0?
# hint: Precisions add: 1 / var = alpha_t / beta_t + 1 / (1 - alpha_bar_{t-1}). With alpha_bar_t =
#   alpha_t alpha_bar_{t-1} this becomes beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t). For t = 0
#   `alpha_bar[t - 1]` is the last number: use 1 there, as by F.pad(alpha_bar, (1, 0), value=1.0).
# hint: mean = (prev.sqrt() * beta * x_0 + alpha.sqrt() * (1 - prev) * x_t) / (1 - now), var = beta
#   * (1 - prev) / (1 - now), where now = alpha_bar[t] and prev = F.pad(alpha_bar, (1, 0),
#   value=1.0)[t], alpha = now / prev, beta = 1 - alpha.
# why: The reverse of a step is Gaussian once x_0 is known, and this is what the model imitates. The
#   less noise x_{t-1} has, the more x_0 counts; at t = 0 it is x_0 itself and nothing is left to
#   chance. The variance is smaller than beta_t, because x_0 tells something about x_{t-1} beyond
#   what x_t does. Check: for x_t = sqrt(alpha_bar_t) x_0 the mean is sqrt(alpha_bar_{t-1}) x_0.
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
    # answer
    now = alpha_bar[t]
    prev = F.pad(alpha_bar, (1, 0), value=1.0)[t]  # alpha_bar of t-1, and 1 for t = 0
    alpha, beta = now / prev, 1 - now / prev
    of_x_0 = prev.sqrt() * beta / (1 - now)
    of_x_t = alpha.sqrt() * (1 - prev) / (1 - now)
    ones = [1] * (x_0.ndim - 1)
    mean = of_x_0.view(-1, *ones) * x_0 + of_x_t.view(-1, *ones) * x_t
    return mean, beta * (1 - prev) / (1 - now)
    # end


# --- 4.6 p_sample (hard, 16 minutes) ------------------------------------------------
# hint: If x_0 were known, you could draw x_{t-1} from the posterior. Which guess of x_0 do you
#   have? In which range must it lie? And how much noise is added in the very last step?
# hint: model, then `predict_x0`, then `clamp`, then `posterior_mean_variance`, then mean + standard
#   deviation * noise. The variance is (B,): take its root, and mind its shape.
# hint: x_0 = predict_x0(x_t, t, model(x_t, t), alpha_bar).clamp(-1, 1); mean, var =
#   posterior_mean_variance(x_0, x_t, t, alpha_bar); return mean + var.sqrt().view(-1, *[1] *
#   (x_t.ndim - 1)) * torch.randn_like(x_t)
# why: The step puts the guess of x_0 where the true one would stand. With the exact variance the
#   noise vanishes at t = 0 by itself; with beta_t, which is also in use, it must be switched off
#   there, or every picture gets grain. Clamping x_0 is a projection on what is possible. It is done
#   to x_0 and not to x_{t-1}, which is noisy and rightly leaves [-1, 1].
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
    # answer
    x_0 = predict_x0(x_t, t, model(x_t, t), alpha_bar).clamp(-1, 1)
    mean, var = posterior_mean_variance(x_0, x_t, t, alpha_bar)
    std = var.sqrt().view(-1, *[1] * (x_t.ndim - 1))  # 0 at t = 0
    return mean + std * torch.randn_like(x_t)
    # end


# --- 4.7 sample (medium, 14 minutes) ------------------------------------------------
# hint: What does x look like after all T steps of noise? Which t comes first on the way back, and
#   which last?
# hint: `reversed(range(T))` counts from T-1 down to 0. The model wants one t for each image:
#   `torch.full`, of which dtype? And see `model.eval()`, `torch.no_grad()` and `model.training`.
# hint: x = torch.randn(shape); for step in reversed(range(len(alpha_bar))): x = p_sample(model, x,
#   torch.full((shape[0],), step), alpha_bar); in eval mode, without a graph, and with the old mode
#   put back at the end.
# why: At t = T-1 almost nothing is left of the data, so that N(0, I) is a fair start. Every step
#   then takes out a little noise and puts in a little less. The step t = 0 counts: without it the
#   last grain stays in the picture. T calls of the network are the price of diffusion models, and
#   what 4.8 is about.
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
    # answer
    was_training = model.training
    model.eval()
    x = torch.randn(shape)
    with torch.no_grad():
        for step in reversed(range(len(alpha_bar))):
            x = p_sample(model, x, torch.full((shape[0],), step), alpha_bar)
    model.train(was_training)
    return x
    # end


# --- 4.8 ddim_step (medium, 14 minutes) ---------------------------------------------
# hint: From x_t and eps_hat you know an x_0. If the same x_0 and the same noise are mixed at the
#   level of s, what do you get?
# hint: `predict_x0` and then the formula of `q_sample`, with eps_hat as its noise and alpha_bar of
#   s. What does `alpha_bar[s]` give where s is -1, and what should it give?
# hint: a = F.pad(alpha_bar, (1, 0), value=1.0)[s + 1].view(-1, *[1] * (x_t.ndim - 1)); return
#   a.sqrt() * predict_x0(x_t, t, eps_hat, alpha_bar) + (1 - a).sqrt() * eps_hat
# why: If eps_hat were the true noise, the result would be exactly the x_s of the same x_0 and eps,
#   however far s is from t. That is why a few dozen long steps can do the work of a thousand. No
#   noise is drawn: the way from noise to picture is a function, which can be followed in both
#   directions, and pictures can be blended in noise space.
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
    # answer
    x_0 = predict_x0(x_t, t, eps_hat, alpha_bar)
    a = F.pad(alpha_bar, (1, 0), value=1.0)[s + 1]  # 1 where s = -1
    a = a.view(-1, *[1] * (x_t.ndim - 1))
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps_hat
    # end


# --- 4.9 classifier_free_guidance (medium, 10 minutes) ------------------------------
# hint: The difference of two predictions, with the label and without, is a direction. Where do you
#   have to start, and how far do you have to go, so that w = 1 ends at the prediction with label?
# hint: Call the model twice, with y and with a tensor like y that is full of `null`; or once with
#   both stacked. Which `torch` function makes a tensor like another one?
# hint: uncond = model(x_t, t, torch.full_like(y, null)); cond = model(x_t, t, y); return uncond + w
#   * (cond - uncond)
# why: The difference is proportional to the gradient of log p(y | x_t), the classifier that nobody
#   had to train. w > 1 makes that classifier surer than it is: images fit their label better and
#   differ less from each other. Papers count in two ways. Here w = 1 is no guidance; with the other
#   convention, (1 + w) cond - w uncond, it is w = 0.
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
    # answer
    cond = model(x_t, t, y)
    uncond = model(x_t, t, torch.full_like(y, null))
    return uncond + w * (cond - uncond)
    # end


# --- 4.10 ema_update (easy, 8 minutes) ----------------------------------------------
# hint: With a decay of 0.999, does the average change much or little in one step? So which of the
#   two, old average or new weights, is multiplied by 0.999?
# hint: Go through both `parameters()` with zip and write into the average's tensors, by `mul_` and
#   `add_`, `lerp_` or `copy_`, under `torch.no_grad()`. What is in `buffers()`?
# hint: under torch.no_grad(): for mean, now in zip(ema.parameters(), model.parameters()):
#   mean.lerp_(now, 1 - decay); then for the buffers: mean.copy_(now)
# why: The weights tremble around a good place as long as the learning rate is not small; their
#   average over the last 1 / (1 - decay) steps lies nearer to it. Diffusion models gain much by
#   it: the loss hardly shows it, but samples do. The average is for sampling only, so no gradient
#   may flow into it and training must not notice it. Buffers are copied: those of batch norm are
#   averages already, and a counter has no average.
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
    # answer
    with torch.no_grad():
        for mean, now in zip(ema.parameters(), model.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
        for mean, now in zip(ema.buffers(), model.buffers(), strict=True):
            mean.copy_(now)
    # end


# --- 4.11 TimeConditionedNet (hard, 20 minutes) -------------------------------------
# hint: A clock has a slow hand and a fast one. Why does it need both, and why is the sine of an
#   angle alone not enough to read a hand? And what must the network be able to do differently at
#   another t: add something to its answer, or treat x_t differently?
# hint: Frequencies 10000 ** (-i / (E/2 - 1)) for i = 0 ... E/2 - 1, in floating point; angles are
#   t[:, None] * frequencies, (B, E/2); torch.cat([angles.sin(), angles.cos()], dim=1). In forward,
#   let embedding and x_t meet before the last nonlinearity: add or concatenate them there.
# hint: h = self.from_x(x_t) + self.from_t(self.embed(t)); return self.rest(h), where from_x and
#   from_t are nn.Linear and rest is nn.Sequential(nn.SiLU(), nn.Linear(hidden_dim, hidden_dim),
#   nn.SiLU(), nn.Linear(hidden_dim, data_dim))
# why: One network serves all noise levels, and the best answer differs between them: at large t
#   x_t is nearly the noise itself, at small t the noise is a small part of it. A bias that depends
#   on t cannot express that. The raw t reaches 999 and would drown x_t. Divided by T, it makes
#   neighbours look the same; in waves of many speeds, both near and far times are easy to tell
#   apart. A network that ignores t still trains, to a loss that looks fine.
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
        # answer
        self.embed_dim = embed_dim
        self.from_x = nn.Linear(data_dim, hidden_dim)
        self.from_t = nn.Linear(embed_dim, hidden_dim)
        self.rest = nn.Sequential(
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, data_dim),
        )
        # end

    def embed(self, t: Tensor) -> Tensor:
        """Waves of t, (B, E) float32: sin(f t) and cos(f t) of E/2 frequencies f, in any order.

        The frequencies are fixed and fall in equal ratios from 1 (the fastest) to about 1/10000. t
        is (B,) int64, taken as it is: it is not divided by T, and reaches up to 1000.
        """
        # answer
        half = self.embed_dim // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
        angles = t[:, None] * frequencies  # (B, E/2)
        return torch.cat([angles.sin(), angles.cos()], dim=1)
        # end

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """eps_hat (B, D) for x_t (B, D) and t (B,) int64."""
        # answer
        return self.rest(self.from_x(x_t) + self.from_t(self.embed(t)))
        # end
