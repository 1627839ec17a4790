"""Variational autoencoder (VAE): learn p(x) with a latent z by maximising the ELBO.

    log p(x)  >=  E_q(z|x)[ log p(x|z) ]  -  KL( q(z|x) || p(z) )

    prior p(z) = N(0, I)     encoder q(z|x) = N(mu(x), diag(exp(logvar(x))))
    decoder p(x|z) = Bernoulli(sigmoid(logits(z))) for digits made black and white at random,
    or N(mean(z), sigma^2 I) for grey and colour pictures (--model gaussian)

Shapes:  B images a batch, C x H x W pixels an image, L latent dimensions, K samples of z an image.
Paper:   Kingma & Welling (2014), Auto-encoding variational Bayes, arXiv:1312.6114. The variants'
         papers stand beside their code.
Run:     python code_examples/03_variational_autoencoder.py
Expect:  after two minutes on two CPU cores with bfloat16, a test -ELBO of 97.8 nats an image (three
         seeds: 97.6 to 98.1), of which the KL is 23.8, and a Frechet distance of 1.2 (1.0 to 1.3)
         for 2,000 samples from the fitted prior, 6.3 (6.0 to 6.7) from N(0, I).
"""

import math
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributions as dist

if __package__:  # imported: from code_examples import vae
    from . import utils
else:  # run: python code_examples/03_variational_autoencoder.py
    import utils

Images, Shape, Metrics = utils.ImageData, tuple[int, int, int], dict[str, float | int | str]
Prior = dist.Distribution

# --- Model --------------------------------------------------------------------------


class VAE(nn.Module):
    """Encoder q(z|x, y) and decoder p(x|z, y); y is a class label if num_classes is not 0.

    features: images (B, C, H, W) to (B, width); decoder: codes and label (B, L + num_classes) back.
    """

    def __init__(
        self, features: nn.Module, width: int, decoder: nn.Module, latent_dim: int, num_classes: int
    ) -> None:
        super().__init__()
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.features, self.decoder = features, decoder
        self.head = nn.Linear(width + num_classes, 2 * latent_dim)  # mu, then logvar
        self.log_sigma: nn.Parameter | None = None  # a Gaussian decoder's, one for all pixels

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """mu and logvar of q(z|x, y), each (B, L), of images (B, C, H, W); notes/03 eq. (3.6)."""
        mu, logvar = unrounded(self.head(self.with_label(self.features(x), y))).chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (Bernoulli) or means (Gaussian) of the pixels, (B, C, H, W), of codes (B, L)."""
        return unrounded(self.decoder(self.with_label(z, y)))

    def with_label(self, h: Tensor, y: Tensor | None) -> Tensor:
        """h (B, D) followed by the one-hot label, (B, D + num_classes)."""
        return torch.cat([h, F.one_hot(y, self.num_classes)], dim=1) if self.num_classes else h

    def forward(self, x: Tensor, y: Tensor | None = None, k: int = 1) -> tuple[Tensor, ...]:
        """mu, logvar, k draws of z and what they decode to; row j * B + i is draw j of image i."""
        mu, logvar = self.encode(x, y)
        z = reparameterize(mu.repeat(k, 1), logvar.repeat(k, 1))
        return mu, logvar, z, self.decode(z, y.repeat(k) if self.num_classes else None)


def unrounded(h: Tensor) -> Tensor:
    """h in float32 if it comes in bfloat16: losses and draws need more than its three digits."""
    return h.to(torch.promote_types(h.dtype, torch.float32))


def conv(size_in: int, size_out: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """A 3 x 3 convolution and its nonlinearity."""
    return nn.Conv2d(size_in, size_out, 3, stride=stride, padding=1), nn.SiLU()


def conv_vae(shape: Shape, latent_dim: int, num_classes: int = 0, width: int = 32) -> VAE:
    """Convolutions that halve the picture twice, and the way back, as in chapter 1."""
    channels, height, wide = shape
    h, w = ceil(height / 4), ceil(wide / 4)
    features = nn.Sequential(
        *conv(channels, width, stride=2),  # (B, 32, H/2, W/2)
        *conv(width, 2 * width, stride=2),  # (B, 64, H/4, W/4)
        *conv(2 * width, 2 * width),
        nn.Flatten(),
        nn.Linear(2 * width * h * w, 8 * width),  # (B, 256)
        nn.SiLU(),
    )
    decoder = nn.Sequential(
        nn.Linear(latent_dim + num_classes, 8 * width),
        nn.SiLU(),
        nn.Linear(8 * width, 2 * width * h * w),
        nn.Unflatten(1, (2 * width, h, w)),
        nn.SiLU(),
        *conv(2 * width, 2 * width),  # (B, 64, H/4, W/4)
        *conv(2 * width, 4 * width),
        nn.PixelShuffle(2),  # (B, 32, H/2, W/2): 4 channels become 2 x 2 pixels
        nn.Conv2d(width, 4 * channels, 3, padding=1),
        nn.PixelShuffle(2),  # (B, C, H, W)
        nn.ZeroPad2d((0, wide - 4 * w, 0, height - 4 * h)),  # negative: cuts what is too large
    )
    return VAE(features, 8 * width, decoder, latent_dim, num_classes)


def mlp_vae(shape: Shape, latent_dim: int, hidden: tuple[int, ...], num_classes: int = 0) -> VAE:
    """Tanh layers: 784-200-200-50 and back in Burda et al. (2016), arXiv:1509.00519."""

    def layers(*sizes: int) -> list[nn.Module]:
        return [m for pair in pairwise(sizes) for m in (nn.Linear(*pair), nn.Tanh())]

    features = nn.Sequential(nn.Flatten(), *layers(prod(shape), *hidden))
    upwards = layers(latent_dim + num_classes, *reversed(hidden))
    decoder = nn.Sequential(*upwards, nn.Linear(hidden[0], prod(shape)), nn.Unflatten(1, shape))
    return VAE(features, hidden[-1], decoder, latent_dim, num_classes)


# --- Objective ----------------------------------------------------------------------


def binarize(x: Tensor, protocol: str) -> Tensor:
    """Pixels in [0, 1] made black or white, so that a Bernoulli likelihood is one.

    "dynamic" draws every pixel from Bernoulli(x), anew at each call; "threshold" is x > 0.5;
    otherwise x stays: "static" was drawn once before, "none" is for Gaussian likelihoods. They are
    not comparable with each other, notes/03 section 5.1.
    """
    if protocol == "dynamic":
        return torch.bernoulli(x)
    return (x > 0.5).to(x.dtype) if protocol == "threshold" else x


def binarize_once(data: Images) -> Images:
    """The data with all pixels drawn once and for ever, the same for every seed of a run."""
    once = torch.Generator().manual_seed(0)
    train, test = (torch.bernoulli(x, generator=once) for x in (data.train, data.test))
    return replace(data, train=train, test=test)


def reparameterize(mu: Tensor, logvar: Tensor) -> Tensor:
    """Draw z ~ N(mu, exp(logvar)) so that gradients flow to mu and logvar; notes/03 eq. (3.9)."""
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL( N(mu, exp(logvar)) || N(0, I) ) >= 0, (B,) nats, summed over L; notes/03 eq. (3.18)."""
    return kl_per_dimension(mu, logvar).sum(dim=1)


def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """The same before the sum: each dimension's share, (B, L) nats; notes/03 eq. (3.18)."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """-log p(x|z) of images x in {0, 1}, (B,) nats, summed over pixels; notes/03 eq. (3.20)."""
    nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    return nll.flatten(1).sum(dim=1)


def gaussian_nll(mean: Tensor, log_sigma: Tensor, x: Tensor) -> Tensor:
    """-log N(x; mean, sigma^2 I), (B,) nats, summed over pixels; notes/03 eq. (3.22).

    Rybkin et al. (2021), arXiv:2006.13202: sigma is learned, so no weight has to be chosen.
    """
    nll = 0.5 * ((x - mean) / log_sigma.exp()).square() + log_sigma + 0.5 * math.log(2 * math.pi)
    return nll.flatten(1).sum(dim=1)


def reconstruction_nll(model: VAE, output: Tensor, x: Tensor) -> Tensor:
    """-log p(x|z), (B,) nats, from what the decoder returned."""
    if model.log_sigma is None:
        return bernoulli_nll(output, x)
    return gaussian_nll(output, model.log_sigma, x)


def neg_elbo(model: nn.Module, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The two terms of -ELBO, from one draw of z for each image; notes/03 eq. (3.7).

    Returns:
        -log p(x|z), (B,) nats, and the KL of each latent dimension, (B, L) nats.
    """
    mu, logvar, _, output = model(x, y)
    return reconstruction_nll(utils.unwrapped(model), output, x), kl_per_dimension(mu, logvar)


def free_bits(kl: Tensor, nats: float) -> Tensor:
    """The KL (B, L) as training pays for it, (): each dimension costs at least `nats`.

    Below that its gradient is 0, so no dimension is pushed to carry less; notes/03 eq. (3.52).
    Kingma et al. (2016), arXiv:1606.04934, eq. (15).
    """
    return kl.mean(dim=0).clamp(min=nats).sum()


def log_importance_weights(
    model: nn.Module, x: Tensor, y: Tensor | None = None, k: int = 1
) -> Tensor:
    """log w = log p(x|z) + log p(z) - log q(z|x), z ~ q, (K, B) nats; notes/03 eq. (3.27)."""
    mu, logvar, z, output = model(x, y, k)
    nll = reconstruction_nll(utils.unwrapped(model), output, x.repeat(k, 1, 1, 1)).view(k, -1)
    z = z.view(k, *mu.shape)
    log_prior = -0.5 * z.square()  # (K, B, L), both without -0.5 log(2 pi), which cancels
    log_q = -0.5 * ((z - mu).square() / logvar.exp() + logvar)
    return -nll + (log_prior - log_q).sum(dim=2)


def iwae_bound(log_w: Tensor) -> Tensor:
    """log( (1/K) sum_k w_k ), (B,) nats: a lower bound of log p(x), on average higher as K grows.

    Burda et al. (2016), arXiv:1509.00519, eq. (8); notes/03 eq. (3.28). K = 1 gives the ELBO.
    """
    return torch.logsumexp(log_w, dim=0) - math.log(len(log_w))


# --- Training and sampling ----------------------------------------------------------


def train(model: VAE, data: Images, config: "Config", run: utils.Run) -> None:
    """Minimise the negative ELBO, or the importance-weighted bound, with Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    run.keep(model=model, optimizer=optimizer)
    net = run.data_parallel(model)
    probe = torch.randn(64, model.latent_dim), torch.arange(64) % max(1, model.num_classes)
    for x, y in run.batches(data.train, data.train_labels):
        optimizer.param_groups[0]["lr"] = run.cosine(config.lr)
        x = binarize(x, config.binarize)
        if config.model == "iwae":
            with run.autocast():
                log_w = log_importance_weights(net, x, y, config.importance_samples)
            loss = -iwae_bound(log_w).mean()
            run.log(neg_elbo=-log_w.mean(), neg_iwae_bound=loss)
        else:
            with run.autocast():
                rec, kl = neg_elbo(net, x, y)
            warmth = min(1.0, run.progress / config.warm_up) if config.warm_up else 1.0
            loss = rec.mean() + warmth * config.beta * free_bits(kl, config.free_bits)
            rate = kl.sum(dim=1).mean()
            run.log(neg_elbo=rec.mean() + rate, reconstruction=rec.mean(), kl=rate)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if run.time_to_look():
            run.show(decode(model, *probe))


def encode(model: VAE, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """mu and logvar (N, L) of images (N, C, H, W)."""
    mu, logvar = utils.in_parts(model, model.encode, x, y)
    return mu, logvar


def decode(model: VAE, z: Tensor, y: Tensor) -> Tensor:
    """Pixel means of p(x|z), (N, C, H, W) in [0, 1], of codes (N, L)."""
    (output,) = utils.in_parts(model, model.decode, z, y)
    return output.sigmoid() if model.log_sigma is None else output.clamp(0, 1)


def standard_normal(model: VAE) -> Prior:
    """p(z) = N(0, I), the prior of training."""
    return dist.MultivariateNormal(torch.zeros(model.latent_dim), torch.eye(model.latent_dim))


def fit_prior(model: VAE, x: Tensor, y: Tensor, components: int, seed: int) -> Prior:
    """A mixture of Gaussians fitted to codes z ~ q(z|x): a better prior; notes/03 eq. (3.58).

    The decoder was trained on these codes, not on draws of N(0, I). Ghosh et al. (2020),
    arXiv:1903.12436, section 4.
    """
    if components == 0:
        return standard_normal(model)
    from sklearn.mixture import GaussianMixture

    z = reparameterize(*encode(model, x, y)).double()
    parts = max(1, min(components, len(z) // 100))  # each needs codes enough for its covariance
    em = GaussianMixture(parts, reg_covar=1e-3, random_state=seed).fit(z)
    weights, means, cov = (torch.tensor(a) for a in (em.weights_, em.means_, em.covariances_))
    gaussians = dist.MultivariateNormal(means.float(), cov.float())
    return dist.MixtureSameFamily(dist.Categorical(weights.float()), gaussians)


def kl_estimate(mu: Tensor, logvar: Tensor, prior: Prior) -> Tensor:
    """KL( q(z|x) || prior ) by one draw of z, (B,) nats; may be negative; notes/03 eq. (3.7)."""
    z = reparameterize(mu, logvar)
    return dist.Normal(mu, torch.exp(0.5 * logvar)).log_prob(z).sum(dim=1) - prior.log_prob(z)


def sample(model: VAE, n: int, prior: Prior) -> Tensor:
    """Draw z from the prior, and labels in turn; return pixel means, (n, C, H, W) in [0, 1]."""
    return decode(model, prior.sample((n,)), torch.arange(n) % max(1, model.num_classes))


def interpolate(model: VAE, start: Tensor, end: Tensor, y: Tensor, steps: int = 9) -> Tensor:
    """Decode a line between the mu of two images, (steps, C, H, W); notes/03 eq. (3.26)."""
    mu, _ = encode(model, torch.stack([start, end]), y)
    share = torch.linspace(0, 1, steps)[:, None]
    return decode(model, torch.lerp(mu[:1], mu[1:], share), y[:1].expand(steps))


def estimate_nll(model: VAE, x: Tensor, y: Tensor, k: int) -> Tensor:
    """-log p(x) of each image, (N,) nats, by k draws; too high on average; notes/03 eq. (3.37)."""

    def bound(x: Tensor, y: Tensor) -> Tensor:
        return iwae_bound(log_importance_weights(model, x, y, k))

    return -utils.in_parts(model, bound, x, y, rows=max(1, 20_000 // k))[0]


def active_units(mu: Tensor) -> Tensor:
    """Which dimensions are used, (L,) bool: Var_x(mu_l) > 0.01; notes/03 eq. (3.48)."""
    return mu.var(dim=0) > 0.01


# --- Experiment ---------------------------------------------------------------------


DEFAULTS = {"epochs": 150, "lr": 2e-3, "latent_dim": 16, "beta": 1.0, "binarize": "dynamic"}
MLP = {"epochs": 400, "lr": 1e-3, "latent_dim": 50}
VARIANTS = {"mlp": MLP, "iwae": MLP, "beta": {"beta": 4.0}, "gaussian": {"binarize": "none"}}


@dataclass(frozen=True)
class Config(utils.Config):
    """Train a variational autoencoder; measure its bound, estimate its likelihood, draw from it."""

    model: Literal["conv", "mlp", "beta", "conditional", "iwae", "gaussian"] = "conv"
    """Which VAE; beta, conditional and gaussian have conv's network, iwae has mlp's."""
    epochs: int | None = None
    """Passes over the training set; 150 unless given, 400 for mlp and iwae."""
    lr: float | None = None
    """Peak learning rate; 2e-3 unless given (mlp and iwae 1e-3), with warm-up and half a cosine."""
    latent_dim: int | None = None
    """Latent dimensions; 16 unless given (mlp and iwae 50). 2 draws a plane."""
    hidden: tuple[int, ...] = (200, 200)
    """mlp and iwae: units of the encoder's hidden layers; the decoder's are their mirror image."""
    beta: float | None = None
    """Weight of the KL; 1, the ELBO, unless given (beta 4). Higgins et al. (2017), beta-VAE."""
    importance_samples: int = 5
    """iwae: draws of z for each image and step."""
    binarize: Literal["dynamic", "static", "threshold", "none"] | None = None
    """How grey pixels become black or white: drawn at each step, drawn once, or cut at 0.5.
    dynamic unless given; gaussian takes grey and colour pictures as they are, none."""
    warm_up: float = 0.0
    """Share of the training over which the KL's weight rises from 0; Bowman et al. (2016)."""
    free_bits: float = 0.0
    """Nats of KL that each latent dimension may have for nothing; Kingma et al. (2016)."""
    components: int = 20
    """Gaussians in the prior that is fitted to the codes for sampling; 0 samples from N(0, I)."""
    nll_samples: int = 100
    """Draws of z for each image in the estimate of -log p(x)."""
    nll_images: int = 1000
    """Test images for that estimate."""

    def __post_init__(self) -> None:
        self.fill(DEFAULTS | VARIANTS.get(self.model, {}))
        super().__post_init__()
        least = {"latent_dim": 1, "importance_samples": 1, "nll_samples": 1, "nll_images": 2}
        for name, value in (least | {"components": 0, "beta": 0, "free_bits": 0}).items():
            utils.check_number(name, getattr(self, name), at_least=value)
        utils.check_number("warm_up", self.warm_up, at_least=0, below=1)
        utils.check_number("hidden", min(self.hidden, default=0), at_least=1)
        if (self.model == "gaussian") != (self.binarize == "none"):
            raise utils.UserError(
                f"--binarize: expected none for --model gaussian and only there, got "
                f"{self.binarize} for {self.model}: a Bernoulli likelihood needs pixels 0 or 1"
            )


def build(config: Config, shape: Shape, num_classes: int) -> VAE:
    """Return the untrained model that `config.model` names; a UserError if it cannot take shape."""
    if config.model != "gaussian" and shape[0] > 1:
        raise utils.UserError(
            f"--model {config.model}: expected grey pictures, which can be made black and white, "
            f"got {shape[0]} channels: use --model gaussian"
        )
    if config.model in ("mlp", "iwae"):
        return mlp_vae(shape, config.latent_dim, config.hidden)
    model = conv_vae(shape, config.latent_dim, num_classes * (config.model == "conditional"))
    if config.model == "gaussian":
        model.log_sigma = nn.Parameter(torch.zeros(()))
    return model


def likelihood(model: VAE, x: Tensor, y: Tensor, prior: Prior, run: utils.Run) -> Metrics:
    """-ELBO and its terms, an importance-weighted estimate, and how much of the code is in use."""
    k, n = run.config.nll_samples, run.config.nll_images
    rec, kl = utils.in_parts(model, lambda *part: neg_elbo(model, *part), x, y)
    nll = estimate_nll(model, x[:n], y[:n], k)
    mu, logvar = encode(model, x, y)
    active = int(active_units(mu).sum())
    if active < 0.1 * model.latent_dim:
        print(
            f"posterior collapse: {active} of {model.latent_dim} latent dimensions are in use, and "
            f"z says little. Lower --beta (now {run.config.beta:g}), or try --free-bits 0.5"
        )
    return {
        "test_neg_elbo_nats": (rec + kl.sum(dim=1)).mean().item(),
        "test_reconstruction_nats": rec.mean().item(),
        "test_kl_nats": kl.sum(dim=1).mean().item(),
        "test_kl_to_fitted_prior_nats": kl_estimate(mu, logvar, prior).mean().item(),
        f"test_nll_nats_importance_{k}": nll.mean().item(),
        f"test_nll_nats_importance_{k}_standard_error": nll.std().item() / math.sqrt(len(nll)),
        "nll_images": len(nll),
        "active_units": active,
        "binarization": run.config.binarize,
    }


def show_codes(model: VAE, data: Images, x: Tensor, run: utils.Run) -> None:
    """Reconstructions, a walk between two images, and the latent plane if there is one."""
    y = data.test_labels
    mu, _ = encode(model, x, y)
    rows = {"test images": data.test[:10], "as trained on": x[:10]}
    rows["reconstructions"] = decode(model, mu[:10], y[:10])
    utils.image_rows(rows, run.path("reconstructions.png"), title="Pixel means of p(x|z) at z = mu")
    share, walks = torch.linspace(0, 1, 9), {}
    for pair, (start, end) in enumerate(x[:4].split(2), 1):
        walks[f"codes {pair}"] = interpolate(model, start, end, y[2 * pair - 2 : 2 * pair])
        walks[f"pixels {pair}"] = torch.stack([start.lerp(end, s) for s in share])
    utils.strips(
        walks,
        run.path("interpolation.png"),
        title="Between two test images: through the codes, and through the pixels",
        xlabel="share of the second image",
        ticks=[f"{s:.2f}" for s in share],
    )
    if model.latent_dim == 2:
        plane, names = run.path("latent_plane.png"), data.class_names
        utils.latent_scatter(mu, y, plane, class_names=names, title="Test images, by mu")


def generation(model: VAE, data: Images, prior: Prior, run: utils.Run) -> Metrics:
    """Samples from the fitted prior and from N(0, I), and how good they are."""
    n, begin = run.config.num_samples, time.perf_counter()
    samples = sample(model, n, prior)
    seconds = time.perf_counter() - begin
    plain = utils.sample_quality(sample(model, n, standard_normal(model)), data)
    run.save_samples(samples, title="Pixel means of p(x|z), z ~ the fitted prior")
    if model.num_classes:
        z = prior.sample((8,)).repeat(model.num_classes, 1)
        y = torch.arange(model.num_classes).repeat_interleave(8)
        title = "Each row a class, each column one z"
        utils.image_grid(decode(model, z, y), run.path("classes.png"), columns=8, title=title)
    return utils.sample_quality(samples, data) | {
        "frechet_distance_standard_normal": plain["frechet_distance"],
        "seconds_per_1000_samples": 1000 * seconds / n,
    }


def main(config: Config) -> None:
    """Train, then measure the bound on test images and draw from the prior."""
    run = utils.start(config, __file__)
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    if config.binarize == "static":
        data = binarize_once(data)
    model = build(config, data.image_shape, len(data.class_names))
    model = model.to(run.device, memory_format=torch.channels_last)
    train(model, data, config, run)
    if run.rank:
        return  # under torchrun only the first process evaluates and writes
    x = binarize(data.test, config.binarize)
    names = ("neg_elbo", "reconstruction", "kl", "neg_iwae_bound")
    run.draw_history(*names, ylabel="nats per image, training", title=f"Training: {config.model}")
    show_codes(model, data, x, run)
    codes = binarize(data.train, config.binarize), data.train_labels
    prior = fit_prior(model, *codes, config.components, config.seed)
    metrics = likelihood(model, x, data.test_labels, prior, run)
    run.finish(**metrics, **generation(model, data, prior, run))


if __name__ == "__main__":
    utils.cli(main, Config)
