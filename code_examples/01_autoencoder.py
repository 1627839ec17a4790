"""Autoencoder: squeeze a picture x into a short code z, and learn to draw it again from z.

    z = encoder(x)     x_hat = decoder(z)     minimise  ||x_hat - x||^2   (summed over pixels)

    linear       both are matrices: the best they can do is PCA
    denoising    the encoder sees x + noise, the target is the clean x
    sparse       + a KL that keeps each of many units active on few pictures only
    contractive  + ||dz/dx||_F^2, so that z moves little when x moves a little

Shapes:  B images a batch, C x H x W pixels an image, L values in a code (--latent-dim).
Paper:   Hinton & Salakhutdinov (2006), Reducing the dimensionality of data with neural networks,
         Science 313. The variants' papers stand beside their code.
Run:     python code_examples/01_autoencoder.py
Expect:  after a minute on two CPU cores with bfloat16, two without, an error of 0.0050 per test
         pixel (three seeds: 0.0048 to 0.0051; PCA with as many values: 0.0156) and a Frechet
         distance of 3.4 (2.8 to 3.8) for 2,000 samples.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if __package__:  # imported: from code_examples import autoencoder
    from . import utils
else:  # run: python code_examples/01_autoencoder.py
    import utils

Images, Shape = utils.ImageData, tuple[int, int, int]

# --- Model --------------------------------------------------------------------------


class Autoencoder(nn.Module):
    """An encoder and a decoder with a bottleneck of L values between them; notes/01 eq. (1.24).

    Calling it maps images (B, C, H, W) to their reconstructions (B, C, H, W) and codes (B, L).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        return self.decoder(z), z


def dense_layers(*sizes: int) -> list[nn.Module]:
    """Linear layers of these sizes with SiLU between them, none after the last."""
    layers = []
    for size_in, size_out in pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), nn.SiLU()]
    return layers[:-1]


def dense_autoencoder(shape: Shape, *sizes: int) -> Autoencoder:
    """Linear layers down to sizes[-1] values and back; one size alone makes it a linear map.

    The 2006 paper has 1000-500-250-L, with the sigmoid in place of SiLU.
    """
    sizes = (prod(shape), *sizes)
    encoder = nn.Sequential(nn.Flatten(), *dense_layers(*sizes))
    decoder = nn.Sequential(*dense_layers(*reversed(sizes)), nn.Unflatten(1, shape))
    return Autoencoder(encoder, decoder)


def conv_autoencoder(shape: Shape, latent_dim: int, width: int = 32) -> Autoencoder:
    """Convolutions that halve the picture twice, a linear bottleneck, and the way back.

    Most multiplications happen at a quarter of the resolution, where they are cheap; PixelShuffle
    then turns 4 channels into 2 x 2 pixels.
    """
    channels, height, wide = shape
    h, w = ceil(height / 4), ceil(wide / 4)
    encoder = nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),  # (B, 32, H/2, W/2)
        nn.SiLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),  # (B, 64, H/4, W/4)
        nn.SiLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(2 * width * h * w, latent_dim),  # (B, L)
    )
    decoder = nn.Sequential(
        nn.Linear(latent_dim, 2 * width * h * w),
        nn.Unflatten(1, (2 * width, h, w)),
        nn.SiLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),  # (B, 64, H/4, W/4)
        nn.SiLU(),
        nn.Conv2d(2 * width, 4 * width, 3, padding=1),
        nn.PixelShuffle(2),  # (B, 32, H/2, W/2)
        nn.SiLU(),
        nn.Conv2d(width, 4 * channels, 3, padding=1),
        nn.PixelShuffle(2),  # (B, C, H, W)
        nn.ZeroPad2d((0, wide - 4 * w, 0, height - 4 * h)),  # negative: cuts what is too large
    )
    return Autoencoder(encoder, decoder)


class TiedAutoencoder(nn.Module):
    """One sigmoid layer whose decoder uses the encoder's matrix transposed.

    z = sigmoid(W x + b), x_hat = W^T z + c. Tying forbids the cheap way round a penalty on z:
    a decoder that multiplies by 1000 what the encoder divided by 1000.
    """

    def __init__(self, shape: Shape, latent_dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.empty(latent_dim, prod(shape)))  # (L, C*H*W)
        self.bias = nn.Parameter(torch.zeros(latent_dim))
        self.output_bias = nn.Parameter(torch.zeros(prod(shape)))
        nn.init.normal_(self.weight, std=0.01)  # small, so that filters show what was learned

    def encoder(self, x: Tensor) -> Tensor:
        """Codes (B, L) in (0, 1) of images (B, C, H, W)."""
        return F.linear(x.flatten(1), self.weight, self.bias).sigmoid()

    def decoder(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W) of codes (B, L)."""
        return F.linear(z, self.weight.T, self.output_bias).unflatten(1, self.shape)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        return self.decoder(z), z


# --- Objective ----------------------------------------------------------------------


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """||x_hat - x||^2, (B,): summed over the pixels of each image; notes/01 eq. (1.25)."""
    return (x_hat - x).square().flatten(1).sum(dim=1)


def corrupt(x: Tensor, sigma: float) -> Tensor:
    """x + sigma * eps, eps ~ N(0, I), (B, C, H, W); x stays as it was. notes/01 eq. (1.40).

    Vincent et al. (2010), Stacked denoising autoencoders, JMLR 11, with their Gaussian noise.
    """
    return x + sigma * torch.randn_like(x)


def sparsity_penalty(z: Tensor, target: float) -> Tensor:
    """KL( Bernoulli(target) || Bernoulli(mean of z over the batch) ), (L,) nats, one a unit.

    Zero when every unit is on in a share `target` of the pictures. z must lie in (0, 1).
    notes/01 eq. (1.50). Ng (2011), CS294A lecture notes: sparse autoencoder.
    """
    on = z.mean(dim=0).clamp(1e-6, 1 - 1e-6)  # (L,) activity; the KL is infinite at 0 and 1
    return target * (target / on).log() + (1 - target) * ((1 - target) / (1 - on)).log()


def contraction_penalty(z: Tensor, weight: Tensor) -> Tensor:
    """||dz/dx||_F^2 of the sigmoid layer z = sigmoid(W x + b), (B,), in closed form.

    dz_j/dx_i = z_j (1 - z_j) W_ji, so the squares factor by units: notes/01 eq. (1.53).
    Rifai et al. (2011), Contractive auto-encoders: explicit invariance during feature extraction.

    Args:
        z: Codes (B, L) in (0, 1).
        weight: The layer's matrix W, (L, C*H*W).
    """
    slope = z * (1 - z)  # (B, L)
    return slope.square() @ weight.square().sum(dim=1)


# --- Training and sampling ----------------------------------------------------------


def network_input(x: Tensor, config: "Config") -> Tensor:
    """What the encoder gets to see of clean images x."""
    return corrupt(x, config.noise) if config.model == "denoising" else x


def train(model: nn.Module, data: Images, config: "Config", run: utils.Run) -> None:
    """Minimise the reconstruction error, and the variant's penalty; notes/01 section 8."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    run.keep(model=model, optimizer=optimizer)
    net = run.data_parallel(model)
    probe = data.test[:500].to(run.device)
    for x, _ in run.batches(data.train):
        optimizer.param_groups[0]["lr"] = run.cosine(config.lr)
        with run.autocast():
            x_hat, z = net(network_input(x, config))
        error = squared_error(x_hat.float(), x).mean()
        loss = error
        if config.model == "sparse":
            loss = loss + config.penalty * sparsity_penalty(z.float(), config.active_share).sum()
        elif config.model == "contractive":
            loss = loss + config.penalty * contraction_penalty(z.float(), model.weight).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss, train_mse_per_pixel=error / x[0].numel())
        if run.time_to_look():
            x = network_input(probe, config)
            x_hat = reconstruct(model, x)
            run.show(torch.stack([x[:8], x_hat[:8]], dim=1).flatten(0, 1))  # in, out, in, ...
            run.log(test_mse_per_pixel=F.mse_loss(x_hat, probe))


@torch.no_grad()
def encode(model: nn.Module, x: Tensor) -> Tensor:
    """Codes (N, L) of images (N, C, H, W), on the CPU; in float32, 500 images at a time."""
    device = next(model.parameters()).device
    return torch.cat([model.encoder(batch.to(device)).cpu() for batch in x.split(500)])


@torch.no_grad()
def decode(model: nn.Module, z: Tensor) -> Tensor:
    """Images (N, C, H, W) in [0, 1] of codes (N, L), on the CPU."""
    device = next(model.parameters()).device
    return torch.cat([model.decoder(batch.to(device)).cpu() for batch in z.split(500)]).clamp(0, 1)


def reconstruct(model: nn.Module, x: Tensor) -> Tensor:
    """Images (N, C, H, W) sent through the bottleneck and back, in [0, 1], where x is."""
    return decode(model, encode(model, x)).to(x.device)


def interpolate(model: nn.Module, start: Tensor, end: Tensor, steps: int = 9) -> Tensor:
    """Decode a straight line between the codes of two images (C, H, W): (steps, C, H, W)."""
    z_start, z_end = encode(model, torch.stack([start, end]))
    share = torch.linspace(0, 1, steps)[:, None]
    return decode(model, (1 - share) * z_start + share * z_end)


def fit_mixture(z: Tensor, components: int, seed: int) -> Any:
    """Fit Gaussians to codes (N, L), at most one for every 50 of them; notes/01 eq. (1.56).

    An autoencoder says nothing about which codes are likely; this asks the training codes.
    """
    from sklearn.mixture import GaussianMixture

    z = z[torch.randperm(len(z))[:10_000]].double()  # enough to fit, and quick
    components = min(components, max(1, len(z) // 50))
    floor = 1e-4 * z.var().item() + 1e-6  # of a variance, so that no Gaussian collapses
    return GaussianMixture(components, reg_covar=floor, random_state=seed).fit(z.numpy())


def sample(model: nn.Module, mixture: Any, n: int) -> Tensor:
    """Decode n codes drawn from the mixture: (n, C, H, W) in [0, 1]."""
    z, _ = mixture.sample(n)  # sorted by component, so shuffle
    return decode(model, torch.from_numpy(z).float()[torch.randperm(n)])


def pca_autoencoder(x: Tensor, latent_dim: int) -> Autoencoder:
    """The linear autoencoder that PCA would choose for images (N, C, H, W), without training.

    The best L directions are the leading eigenvectors of the covariance; notes/01 eq. (1.35).
    """
    flat = x.flatten(1).double()
    mean = flat.mean(dim=0)
    if len(flat) > flat.shape[1]:
        _, vectors = torch.linalg.eigh((flat - mean).T @ (flat - mean))  # ascending eigenvalues
        vectors = vectors.T.flip(0)
    else:  # fewer images than pixels: the same directions, without a huge covariance
        *_, vectors = torch.linalg.svd(flat - mean, full_matrices=False)
    directions = vectors[:latent_dim]  # (L, C*H*W), orthonormal rows
    model = dense_autoencoder(tuple(x.shape[1:]), len(directions)).requires_grad_(False)
    down, up = model.encoder[1], model.decoder[0]
    down.weight.copy_(directions)
    down.bias.copy_(-directions @ mean)
    up.weight.copy_(directions.T)
    up.bias.copy_(mean)
    return model


# --- Experiment ---------------------------------------------------------------------


# What a flag is when it is not given. An epoch of a one-layer model takes a thirtieth of the time.
DEFAULTS = {"epochs": 100, "lr": 1e-3, "latent_dim": 32, "penalty": 0.0}
VARIANTS = {
    "linear": {"epochs": 300, "lr": 3e-3},
    "sparse": {"epochs": 300, "lr": 5e-3, "latent_dim": 256, "penalty": 3.0},
    "contractive": {"epochs": 300, "lr": 5e-3, "penalty": 0.5},
}
Metrics = dict[str, float | int | str]


@dataclass(frozen=True)
class Config(utils.Config):
    """Train an autoencoder; show what its codes are good for, and what they are not."""

    model: Literal["conv", "linear", "mlp", "denoising", "sparse", "contractive"] = "conv"
    """Which autoencoder; denoising has conv's network, sparse and contractive one tied layer."""
    epochs: int | None = None
    """Passes over the training set; 100 unless given, 300 for the one-layer models."""
    lr: float | None = None
    """Peak learning rate; 1e-3 unless given (linear 3e-3, sparse and contractive 5e-3). It warms up
    over the first 2% and follows half a cosine down to 0."""
    latent_dim: int | None = None
    """Values in a code; 32 unless given (sparse 256, most near 0). 2 draws a plane."""
    penalty: float | None = None
    """sparse and contractive: weight of the penalty; 3 and 0.5 unless given."""
    noise: float = 0.5
    """denoising: standard deviation of the noise, in units of the pixels' range."""
    active_share: float = 0.02
    """sparse: the share of pictures on which a unit should be active."""
    components: int = 20
    """Gaussians in the mixture that is fitted to the codes for sampling."""

    def __post_init__(self) -> None:
        self.fill(DEFAULTS | VARIANTS.get(self.model, {}))
        super().__post_init__()
        utils.check_number("latent_dim", self.latent_dim, at_least=1)
        utils.check_number("penalty", self.penalty, at_least=0)
        utils.check_number("noise", self.noise, above=0)
        utils.check_number("active_share", self.active_share, above=0, below=1)
        utils.check_number("components", self.components, at_least=1)


def build(config: Config, shape: Shape) -> nn.Module:
    """Return the untrained network that `config.model` names."""
    if config.model in ("sparse", "contractive"):
        return TiedAutoencoder(shape, config.latent_dim)
    if config.model == "linear":
        return dense_autoencoder(shape, config.latent_dim)
    if config.model == "mlp":
        return dense_autoencoder(shape, 1000, 500, 250, config.latent_dim)
    return conv_autoencoder(shape, config.latent_dim)


def compression(model: nn.Module, by_pca: nn.Module, data: Images, run: utils.Run) -> Metrics:
    """How much is lost: the error on test images, beside PCA with as many values.

    Both are clipped to [0, 1] first, as a picture is; that helps PCA by a tenth.
    """
    x, values = data.test, f"{run.config.latent_dim} values"
    x_hat, x_pca = reconstruct(model, x), reconstruct(by_pca, x)
    mse, mse_pca = F.mse_loss(x_hat, x).item(), F.mse_loss(x_pca, x).item()
    firsts = [(data.test_labels == kind).nonzero()[0, 0] for kind in data.test_labels.unique()]
    pick = torch.tensor([*firsts, *range(len(x))])[:10]  # one of each class, then any
    utils.image_rows(
        {"test images": x[pick], "autoencoder": x_hat[pick], "PCA": x_pca[pick]},
        run.path("reconstructions.png"),
        title=f"What {values} keep of a picture",
        notes={"autoencoder": f"MSE {mse:.4f}", "PCA": f"MSE {mse_pca:.4f}"},
    )
    utils.curves(
        {name: run.series(f"{name}_mse_per_pixel") for name in ("train", "test")},
        run.path("learning_curve.png"),
        xlabel="epoch",
        ylabel="mean squared error per pixel",
        title=f"{run.config.model} with {values}",
        logy=True,
        hlines={"PCA, test": mse_pca},
    )
    return {
        "test_mse_per_pixel": mse,
        "test_sse_per_image": squared_error(x_hat, x).mean().item(),
        "pca_test_mse_per_pixel": mse_pca,
    }


def show_denoising(model: nn.Module, data: Images, run: utils.Run) -> Metrics:
    """PSNR of noisy test images, of two classical filters and of the network; with the picture."""
    from scipy.ndimage import gaussian_filter, median_filter

    x = data.test[:1000]
    noisy = corrupt(x, run.config.noise)
    cleaned = {
        "noisy": noisy,
        "median": torch.from_numpy(median_filter(noisy.numpy(), size=(1, 1, 3, 3))),
        "gaussian": torch.from_numpy(gaussian_filter(noisy.numpy(), sigma=(0, 0, 1, 1))),
        "network": reconstruct(model, noisy),
    }
    cleaned = {name: images.clamp(0, 1) for name, images in cleaned.items()}
    quality = {name: utils.psnr(images, x).mean().item() for name, images in cleaned.items()}
    utils.image_rows(
        {"clean": x[:10], **{name: images[:10] for name, images in cleaned.items()}},
        run.path("denoising.png"),
        title=f"Removing noise of standard deviation {run.config.noise:g}",
        notes={name: f"{value:.1f} dB" for name, value in quality.items()},
    )
    return {f"psnr_{name}_db": value for name, value in quality.items()}


def representation(model: nn.Module, by_pca: nn.Module, data: Images, run: utils.Run) -> Metrics:
    """What the codes know of the classes: probes on them, beside probes on as many PCA values."""
    accuracy = {}
    several = len(data.train_labels.unique()) > 1  # pictures of one class ask no question
    for prefix, network in {"": model, "pca_": by_pca}.items() if several else ():
        z, z_test = encode(network, data.train), encode(network, data.test)
        probes = utils.probe_accuracy(z, data.train_labels, z_test, data.test_labels)
        accuracy |= {f"{prefix}{name}_probe_accuracy": share for name, share in probes.items()}
    if run.config.latent_dim == 2:
        utils.latent_scatter(
            encode(model, data.test),
            data.test_labels,
            run.path("latent_plane.png"),
            class_names=data.class_names,
            title="Test images in the latent plane",
        )
    return accuracy


def show_interpolation(model: nn.Module, data: Images, run: utils.Run) -> None:
    """From one test image to another: a straight line through the codes, and through the pixels."""
    rows, share = {}, torch.linspace(0, 1, 9)
    for pair, (start, end) in enumerate(data.test[:4].split(2), 1):
        rows[f"codes {pair}"] = interpolate(model, start, end, steps=len(share))
        rows[f"pixels {pair}"] = torch.stack([start.lerp(end, s) for s in share])
    utils.strips(
        rows,
        run.path("interpolation.png"),
        title="Between two test images: through the codes, and through the pixels",
        xlabel="share of the second image",
        ticks=[f"{s:.2f}" for s in share],
    )


def generation(model: nn.Module, data: Images, run: utils.Run) -> Metrics:
    """Decode N(0, I), and a mixture fitted to the codes; why: notes/01 section 6.7."""
    n, z = run.config.num_samples, encode(model, data.train)
    mixture = fit_mixture(z, run.config.components, run.config.seed)
    begin = time.perf_counter()
    samples = sample(model, mixture, n)
    seconds = time.perf_counter() - begin
    naive = decode(model, torch.randn(n, z.shape[1]))
    quality, naive_quality = utils.sample_quality(samples, data), utils.sample_quality(naive, data)
    k = min(10, len(data.test))
    run.save_samples(samples, title="Decoded draws from a Gaussian mixture fitted to the codes")
    utils.image_rows(
        {"test images": data.test[:k], "z ~ mixture": samples[:k], "z ~ N(0, I)": naive[:k]},
        run.path("samples_two_ways.png"),
        title="Which codes are likely? An autoencoder does not say",
        notes={
            "z ~ mixture": f"Frechet {quality['frechet_distance']:.1f}",
            "z ~ N(0, I)": f"Frechet {naive_quality['frechet_distance']:.0f}",
        },
    )
    return quality | {
        "frechet_distance_standard_normal": naive_quality["frechet_distance"],
        "seconds_per_1000_samples": 1000 * seconds / n,
    }


def show_filters(model: nn.Module, shape: Shape, run: utils.Run) -> None:
    """Each of the first 64 units' weights as a picture: what the unit looks for."""
    weight = model.weight if isinstance(model, TiedAutoencoder) else model.encoder[1].weight
    weight = weight.detach().cpu()[:64]
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    pictures = ((weight - low) / (high - low).clamp(min=1e-12)).view(-1, *shape)
    utils.image_grid(pictures, run.path("filters.png"), title=f"What {len(weight)} units look for")


def main(config: Config) -> None:
    """Train, then measure compression, representation and sampling on test images."""
    run = utils.start(config, __file__)
    data = utils.load_images(config.dataset, config.data_root, quick=config.quick)
    # channels_last and bfloat16 together halve the time of a step where the CPU has AVX512-BF16
    model = build(config, data.image_shape).to(run.device, memory_format=torch.channels_last)
    train(model, data, config, run)
    if run.rank:
        return  # under torchrun only the first process evaluates and writes
    by_pca = pca_autoencoder(data.train, config.latent_dim)
    metrics = compression(model, by_pca, data, run)
    if config.model == "denoising":
        metrics |= show_denoising(model, data, run)
    if config.model in ("linear", "sparse", "contractive"):
        show_filters(model, data.image_shape, run)
    show_interpolation(model, data, run)
    metrics |= representation(model, by_pca, data, run) | generation(model, data, run)
    run.finish(**metrics)


if __name__ == "__main__":
    utils.cli(main, Config)
