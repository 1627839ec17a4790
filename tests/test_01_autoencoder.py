"""The autoencoder against independent answers: SVD, autograd Jacobians, torch.distributions."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Bernoulli, kl_divergence

from code_examples import autoencoder, utils

Config = autoencoder.Config
MODELS = ("conv", "linear", "mlp", "denoising", "sparse", "contractive")


def some_images(n=16, shape=(1, 8, 8)):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


def fit(config, images, tmp_path):
    """Train `config` on images alone; return the model and its run."""
    labels = torch.zeros(len(images), dtype=torch.long)
    data = utils.ImageData("toy", images, labels, images, labels, class_names=("all",))
    run = utils.start(config, "toy.py")
    model = autoencoder.build(config, data.image_shape)
    autoencoder.train(model, data, config, run)
    return model, run


# --- Model


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 7, 5)])
def test_every_model_returns_images_and_codes_of_the_right_shape(model, shape):
    x = some_images(3, shape)
    x_hat, z = autoencoder.build(Config(model=model, latent_dim=6), shape)(x)
    assert x_hat.shape == x.shape
    assert z.shape == (3, 6)


@pytest.mark.parametrize("model", MODELS)
def test_nothing_goes_round_the_bottleneck(model):
    """d x_hat / d x has at most L independent directions; a skip connection would add 64."""
    torch.manual_seed(0)
    net = autoencoder.build(Config(model=model, latent_dim=5), (1, 8, 8)).double()
    x = some_images(1).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v)[0], x).view(64, 64)
    assert torch.linalg.matrix_rank(jacobian, rtol=1e-9) == 5


def test_a_pca_autoencoder_loses_exactly_the_discarded_singular_values():
    """Eckart and Young: the least squared error of rank L is the sum of the other sigma^2."""
    x = some_images(50)
    singular = torch.linalg.svdvals((x - x.mean(0)).flatten(1).double())
    x_hat, _ = autoencoder.pca_autoencoder(x, 7)(x)
    loss = autoencoder.squared_error(x_hat, x).sum().item()
    assert loss == pytest.approx(singular[7:].square().sum().item(), rel=1e-4)


def test_pca_of_fewer_images_than_pixels_spans_the_same_space():
    x = some_images(30)
    few, many = (
        autoencoder.pca_autoencoder(x, 5),
        autoencoder.pca_autoencoder(x.repeat(3, 1, 1, 1), 5),
    )
    torch.testing.assert_close(few(x)[0], many(x)[0])


def test_pca_keeps_no_more_directions_than_there_are_pixels():
    x = some_images(80)
    x_hat, z = autoencoder.pca_autoencoder(x, 100)(x)
    assert z.shape == (80, 64)
    torch.testing.assert_close(x_hat, x, atol=1e-4, rtol=0)


def test_a_trained_linear_autoencoder_finds_pca(tmp_path):
    """Its error meets the exact PCA error within 1%, and both span the same subspace."""
    torch.manual_seed(0)
    x = utils.load_images("digits").train
    config = Config(
        model="linear",
        latent_dim=10,
        epochs=160,
        batch_size=64,
        lr=1e-2,
        out=tmp_path,
        precision="fp32",
    )
    model, _ = fit(config, x, tmp_path)
    exact = autoencoder.pca_autoencoder(x, 10)
    error, best = (autoencoder.squared_error(m(x)[0], x).mean().item() for m in (model, exact))
    assert best <= error <= 1.01 * best
    span = torch.linalg.qr(model.decoder[0].weight)[0]  # (64, L), orthonormal
    cosines = torch.linalg.svdvals(exact.encoder[1].weight @ span)
    assert cosines.min() > 0.97


# --- Objective


def test_squared_error_sums_over_pixels():
    x = some_images(4)
    one = autoencoder.squared_error(x + 0.5, x)
    torch.testing.assert_close(one, torch.full((4,), 64 * 0.25))
    wide = torch.cat([x, x], dim=3)
    torch.testing.assert_close(autoencoder.squared_error(wide + 0.5, wide), 2 * one)


def test_corrupting_adds_noise_of_the_stated_size_and_leaves_the_clean_image_alone():
    torch.manual_seed(0)
    x = some_images(400)
    before = x.clone()
    eps = autoencoder.corrupt(x, 0.5) - x
    assert torch.equal(x, before)
    assert eps.std().item() == pytest.approx(0.5, rel=0.03)
    assert eps.mean().item() == pytest.approx(0, abs=0.02)


def test_denoising_is_graded_against_the_clean_image(tmp_path):
    """Only the clean image is to be reproduced: its oracle costs 0, copying the noise costs."""

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))
            self.encoder, self.decoder = torch.nn.Flatten(), torch.nn.Unflatten(1, (1, 8, 8))

        def forward(self, x):
            assert not torch.equal(x, clean.expand_as(x)), "the input must be noisy"
            return clean.expand_as(x) + 0 * self.unused, x.flatten(1)

    class Copy(Oracle):
        def forward(self, x):
            return x + 0 * self.unused, x.flatten(1)

    clean = some_images(1)
    data = clean.repeat(64, 1, 1, 1)
    config = Config(
        model="denoising", noise=0.5, epochs=10, batch_size=16, out=tmp_path, precision="fp32"
    )
    for net, expected in ((Oracle(), 0.0), (Copy(), 64 * 0.25)):
        labels = torch.zeros(64, dtype=torch.long)
        run = utils.start(config, "toy.py")
        autoencoder.train(
            net, utils.ImageData("toy", data, labels, data, labels, ("all",)), config, run
        )
        losses = run.series("loss")[1]
        assert sum(losses) / len(losses) == pytest.approx(expected, rel=0.1, abs=1e-6)


def test_sparsity_penalty_is_the_kl_of_two_bernoullis():
    z = torch.rand(10, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Bernoulli(torch.tensor(0.1).double()), Bernoulli(z.mean(0)))
    torch.testing.assert_close(autoencoder.sparsity_penalty(z, 0.1), expected)
    rare = torch.zeros(10, 3)
    rare[:1] = 1.0  # on in one picture of ten
    torch.testing.assert_close(autoencoder.sparsity_penalty(rare, 0.1), torch.zeros(3))
    assert autoencoder.sparsity_penalty(torch.zeros(4, 3), 0.1).isfinite().all()


def test_contraction_penalty_is_the_squared_norm_of_the_autograd_jacobian():
    torch.manual_seed(0)
    net = autoencoder.TiedAutoencoder((1, 4, 3), latent_dim=5).double()
    torch.nn.init.normal_(net.bias)
    x = some_images(6, (1, 4, 3)).double()
    jacobians = torch.stack([torch.autograd.functional.jacobian(net.encoder, v[None]) for v in x])
    expected = jacobians.square().flatten(1).sum(1)
    torch.testing.assert_close(
        autoencoder.contraction_penalty(net.encoder(x), net.weight), expected
    )


def test_penalties_reach_the_loss_and_change_what_is_learned(tmp_path):
    x = utils.load_images("digits", quick=True).train
    common = {"epochs": 30, "batch_size": 64, "latent_dim": 30, "lr": 1e-2}

    def codes(**flags):
        folder = tmp_path / "-".join(map(str, flags.values()))
        model, _ = fit(Config(**common, **flags, out=folder), x, tmp_path)
        return model, autoencoder.encode(model, x)

    _, free = codes(model="sparse", penalty=0.0)
    _, sparse = codes(model="sparse", penalty=3.0, active_share=0.05)
    assert sparse.mean() < 0.5 * free.mean()
    norms = []
    for penalty in (0.0, 1.0):
        model, z = codes(model="contractive", penalty=penalty)
        norms.append(autoencoder.contraction_penalty(z, model.weight).mean().item())
    assert norms[1] < 0.5 * norms[0]


# --- Training and sampling


def test_training_can_memorise_a_few_images(tmp_path):
    config = Config(latent_dim=16, epochs=500, batch_size=8, lr=3e-3, out=tmp_path)
    torch.manual_seed(0)
    x = some_images(8)
    model, run = fit(config, x, tmp_path)
    assert (autoencoder.reconstruct(model, x) - x).square().mean() < 0.1 * x.var()
    assert run.series("loss")[1][-1] < 0.2 * run.series("loss")[1][0]


def test_interpolation_begins_and_ends_at_the_reconstructions():
    torch.manual_seed(0)
    model = autoencoder.build(Config(latent_dim=4), (1, 8, 8))
    start, end = some_images(2)
    path = autoencoder.interpolate(model, start, end, steps=5)
    torch.testing.assert_close(
        path[[0, -1]], autoencoder.reconstruct(model, torch.stack([start, end]))
    )
    z = autoencoder.encode(model, torch.stack([start, end])).mean(0, keepdim=True)
    torch.testing.assert_close(path[2:3], autoencoder.decode(model, z))


def test_mixture_samples_have_the_moments_of_the_codes():
    """Two far clusters: the mixture finds both, in shuffled order; one Gaussian would not."""

    class Bare(torch.nn.Module):
        """Shows codes as pictures of 1 x 3 pixels."""

        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def decoder(self, z):
            return z.view(-1, 1, 1, 3)

    generator = torch.Generator().manual_seed(0)
    z = 0.2 + 0.03 * torch.randn(2000, 3, generator=generator)
    z[:1000] += 0.5
    torch.manual_seed(0)
    mixture = autoencoder.fit_mixture(z, components=2, seed=0)
    drawn = autoencoder.sample(Bare(), mixture, 4000).view(-1, 3)
    high = drawn[:, 0] > 0.45
    assert high.float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert high[:100].float().mean().item() == pytest.approx(0.5, abs=0.2)  # not sorted by cluster
    torch.testing.assert_close(drawn[high].mean(0), torch.full((3,), 0.7), atol=0.005, rtol=0)
    assert drawn[high].std().item() == pytest.approx(0.03, rel=0.1)


def test_a_mixture_of_collapsed_codes_is_still_a_mixture():
    mixture = autoencoder.fit_mixture(torch.ones(60, 2), components=20, seed=0)
    assert len(mixture.means_) == 1


# --- Experiment


@pytest.mark.parametrize("model", MODELS)
def test_main_writes_a_whole_run(model, tmp_path):
    autoencoder.main(Config(model=model, epochs=1, quick=True, out=tmp_path, latent_dim=2))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test_mse_per_pixel"] < 1
    assert all(math.isfinite(v) for v in metrics.values() if isinstance(v, float))
    expected = {"config.json", "history.csv", "samples.npy", "samples.png", "checkpoint.pt"}
    pictures = {"reconstructions.png", "interpolation.png", "latent_plane.png", "training.gif"}
    if model == "denoising":
        pictures.add("denoising.png")
        assert metrics["psnr_noisy_db"] < metrics["psnr_gaussian_db"]
    if model in ("linear", "sparse", "contractive"):
        pictures.add("filters.png")
    assert expected | pictures <= {p.name for p in tmp_path.iterdir()}


def test_metrics_are_those_of_the_saved_model(tmp_path):
    """Recomputed from the checkpoint and from an SVD, without the chapter's own evaluation."""
    autoencoder.main(Config(model="mlp", latent_dim=5, quick=True, dataset="digits", out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    data = utils.load_images("digits", quick=True)
    model = autoencoder.build(Config(model="mlp", latent_dim=5), data.image_shape)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    model.load_state_dict(state["objects"]["model"])
    x = data.test.flatten(1)
    x_hat = model(data.test)[0].flatten(1).clamp(0, 1)
    assert metrics["test_mse_per_pixel"] == pytest.approx(
        (x_hat - x).square().mean().item(), rel=1e-4
    )
    mean = data.train.flatten(1).mean(0)
    *_, v = torch.linalg.svd(data.train.flatten(1) - mean, full_matrices=False)
    x_pca = (mean + (x - mean) @ v[:5].T @ v[:5]).clamp(0, 1)
    expected = (x_pca - x).square().mean().item()
    assert metrics["pca_test_mse_per_pixel"] == pytest.approx(expected, rel=1e-4)
    samples = np.load(tmp_path / "samples.npy")
    assert samples.shape == (256, 1, 8, 8)
    assert samples.dtype == np.float32
    assert samples.min() >= 0
    assert samples.max() <= 1


@pytest.mark.parametrize("classes", [1, 20])
def test_main_takes_forty_colour_pictures_of_few_or_many_classes(classes, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "pictures" / f"class {i % classes}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(path)
    config = Config(
        dataset=f"folder:{tmp_path}/pictures@10",
        quick=True,
        epochs=1,
        num_samples=10,
        latent_dim=400,  # more than there are pixels
        out=tmp_path / "run",
    )
    autoencoder.main(config)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert math.isfinite(metrics["frechet_distance"])


@pytest.mark.parametrize(
    "flags", [{"latent_dim": 0}, {"components": 0}, {"noise": 0.0}, {"active_share": 1.0}]
)
def test_impossible_values_are_refused(flags):
    with pytest.raises(utils.UserError, match="expected a finite number"):
        Config(**flags)
    with pytest.raises(utils.UserError, match="--model: expected one of conv, linear"):
        Config(model="vae")


# --- Measured quality: make test-slow


@pytest.mark.slow
def test_default_run_halves_the_error_of_pca(tmp_path):
    autoencoder.main(Config(out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test_mse_per_pixel"] <= 0.0084
    assert metrics["frechet_distance"] < 0.2 * metrics["frechet_distance_standard_normal"]


@pytest.mark.slow
def test_the_network_removes_noise_better_than_classical_filters(tmp_path):
    autoencoder.main(Config(model="denoising", out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    filters = max(metrics["psnr_median_db"], metrics["psnr_gaussian_db"])
    assert metrics["psnr_network_db"] > filters + 3


@pytest.mark.slow
def test_default_linear_run_meets_pca_within_one_percent(tmp_path):
    autoencoder.main(Config(model="linear", out=tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    ratio = metrics["test_mse_per_pixel"] / metrics["pca_test_mse_per_pixel"]
    assert ratio == pytest.approx(1, abs=0.01)
