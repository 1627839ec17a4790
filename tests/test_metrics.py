"""Every metric against an answer found another way: a closed form, SciPy, torchmetrics, a count."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from code_examples.utils import digit_network, metrics
from code_examples.utils.data import ImageData, load_images
from code_examples.utils.errors import UserError

FULL_MNIST = Path(__file__).resolve().parents[2] / "shared" / "data"
D = digit_network.NUM_FEATURES


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(size, seed):
    """A random symmetric positive definite matrix."""
    a = normal(size, size, seed=seed)
    return a @ a.T + 0.1 * torch.eye(size, dtype=torch.float64)


@pytest.fixture(scope="module")
def digits():
    return load_images("mnist5k")


def images(name, pictures):
    """An ImageData of which only the name and the test pictures matter."""
    labels = torch.zeros(len(pictures), dtype=torch.int64)
    return ImageData(name, pictures, labels, pictures, labels, ("all",))


# --- Frechet distance


def test_frechet_distance_of_commuting_gaussians_is_the_closed_form():
    basis = torch.linalg.qr(normal(5, 5)).Q
    s1, s2 = torch.tensor([[0.5, 1, 2, 3, 4], [1, 0.1, 2, 5, 0.3]], dtype=torch.float64)
    covs = [basis @ torch.diag(s**2) @ basis.T for s in (s1, s2)]
    mu1, mu2 = normal(5, seed=1), normal(5, seed=2)
    expected = (mu1 - mu2).square().sum() + (s1 - s2).square().sum()
    found = metrics.frechet_distance(mu1, covs[0], mu2, covs[1])
    assert found == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_frechet_distance_agrees_with_scipy_on_covariances_that_do_not_commute(seed):
    from scipy.linalg import sqrtm

    c1, c2 = spd(6, 2 * seed), spd(6, 2 * seed + 1)
    mu1, mu2 = normal(6, seed=seed), normal(6, seed=seed + 50)
    root = np.real(sqrtm((c1 @ c2).numpy()))
    expected = (mu1 - mu2).square().sum() + c1.trace() + c2.trace() - 2 * np.trace(root)
    assert metrics.frechet_distance(mu1, c1, mu2, c2) == pytest.approx(expected.item(), rel=1e-8)
    assert metrics.frechet_distance(mu2, c2, mu1, c1) == pytest.approx(expected.item(), rel=1e-8)


def test_frechet_distance_of_fewer_samples_than_features_is_finite_and_zero_with_itself():
    few, many = normal(3, 4), normal(50, 4, seed=1)
    one, two = metrics.gaussian_statistics(few), metrics.gaussian_statistics(many)
    assert 0 < metrics.frechet_distance(*one, *two) < 100
    # the root of a rounding error of 1e-16 is 1e-8, so this zero cannot be sharper
    assert metrics.frechet_distance(*one, *one) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(*two, *two) == pytest.approx(0, abs=1e-10)


def test_gaussian_statistics_are_those_of_numpy_and_refuse_a_single_sample():
    f = normal(20, 4)
    mu, cov = metrics.gaussian_statistics(f.float())
    assert mu.dtype == cov.dtype == torch.float64
    np.testing.assert_allclose(mu, f.numpy().mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(cov, np.cov(f.numpy(), rowvar=False), atol=1e-6)
    with pytest.raises(UserError, match="expected 2 or more"):
        metrics.gaussian_statistics(f[:1])


def test_distances_ignore_the_order_of_rows_and_frechet_scales_with_the_square():
    f, g = normal(60, 8), normal(60, 8, seed=1) + 0.3
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))

    def frechet(a, b):
        return metrics.frechet_distance(
            *metrics.gaussian_statistics(a), *metrics.gaussian_statistics(b)
        )

    assert frechet(f[order], g) == pytest.approx(frechet(f, g), rel=1e-10)
    assert frechet(3 * f, 3 * g) == pytest.approx(9 * frechet(f, g), rel=1e-10)
    assert metrics.kernel_distance(f[order], g) == pytest.approx(metrics.kernel_distance(f, g))
    assert metrics.precision_recall(f[order], g) == metrics.precision_recall(f, g)


# --- Kernel distance


def test_kernel_distance_is_the_double_loop_of_its_definition():
    f, g = normal(5, 3), normal(7, 3, seed=1)

    def mean(a, b, same):
        pairs = [
            (float(x @ y) / 3 + 1) ** 3
            for i, x in enumerate(a)
            for j, y in enumerate(b)
            if not (same and i == j)
        ]
        return sum(pairs) / len(pairs)

    expected = mean(f, f, True) + mean(g, g, True) - 2 * mean(f, g, False)
    assert metrics.kernel_distance(f, g) == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased_on_equal_distributions():
    draws = torch.tensor(
        [
            metrics.kernel_distance(normal(12, 4, seed=i), normal(20, 4, seed=10_000 + i))
            for i in range(1000)
        ]
    )
    standard_error = draws.std() / math.sqrt(len(draws))
    assert abs(draws.mean()) < 4 * standard_error
    assert (draws < 0).any()  # an estimate that cannot be negative cannot be unbiased here
    assert standard_error < 0.05  # the biased estimator is off by more than 0.3 here


def test_kernel_distance_does_not_depend_on_the_chunk(monkeypatch):
    f, g = normal(50, 6), normal(33, 6, seed=1)
    whole, balls = metrics.kernel_distance(f, g), metrics.precision_recall(f, g)
    monkeypatch.setattr(metrics, "CHUNK", 7)
    assert metrics.kernel_distance(f, g) == pytest.approx(whole, rel=1e-12)
    assert metrics.precision_recall(f, g) == balls


# --- torchmetrics on the same features


@pytest.mark.filterwarnings("ignore:Metric `")  # it keeps all features in memory, and says so
def test_torchmetrics_finds_the_same_distances_and_score():
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore
    from torchmetrics.image.kid import KernelInceptionDistance

    identity = nn.Identity()
    identity.num_features = 8
    f, g = normal(200, 8), 1.3 * normal(200, 8, seed=1) + 0.2
    frechet = FrechetInceptionDistance(identity, normalize=True)
    kernel = KernelInceptionDistance(identity, subsets=1, subset_size=200)
    for theirs in (frechet, kernel):
        theirs.update(f, real=True)
        theirs.update(g, real=False)
    ours = metrics.frechet_distance(
        *metrics.gaussian_statistics(f), *metrics.gaussian_statistics(g)
    )
    assert ours == pytest.approx(frechet.compute().item(), rel=1e-6)
    assert metrics.kernel_distance(f, g) == pytest.approx(kernel.compute()[0].item(), rel=1e-6)
    logits = 2 * normal(200, 10, seed=2)
    score = InceptionScore(nn.Identity(), splits=2)  # at 1 its standard deviation would warn
    score.update(logits)
    both = torch.cat([logits, logits])  # any halves of a doubled set differ, so compare loosely
    assert metrics.inception_score(both.softmax(dim=1)) == pytest.approx(
        score.compute()[0].item(), rel=0.05
    )


# --- Precision and recall


def grid(columns, rows=6):
    """Points of the unit grid at the given columns."""
    axes = [torch.arange(float(rows)), torch.tensor(columns, dtype=torch.float32)]
    return torch.cartesian_prod(*axes).flip(1).double()


def test_a_ball_reaches_the_kth_neighbour_and_not_the_point_itself():
    line = torch.arange(10.0).double()[:, None]  # k = 1: radius 1, for every point
    near, far = torch.full((10, 1), -0.9).double(), torch.full((10, 1), -1.1).double()
    assert metrics.precision_recall(line, near, k=1)[0] == 1
    assert metrics.precision_recall(line, far, k=1)[0] == 0
    assert metrics.precision_recall(line, far, k=2)[0] == 1  # the end's second neighbour is at 2


def test_precision_and_recall_of_identical_and_of_disjoint_sets():
    square = grid(list(range(6)))
    assert metrics.precision_recall(square, square) == (1, 1)
    assert metrics.precision_recall(square, square + 100) == (0, 0)


def test_samples_of_half_the_modes_are_precise_but_recall_one_half():
    modes = torch.cat([grid(list(range(6))), grid(list(range(6))) + 100])
    half = grid(list(range(6))) + 0.01
    twice = torch.cat([half, half + 0.01])
    precision, recall = metrics.precision_recall(modes, twice)
    assert precision == 1
    assert recall == 0.5
    # and with the roles changed, inventing a mode costs precision alone
    assert metrics.precision_recall(twice, modes) == (0.5, 1)


def test_a_collapsed_generator_has_no_recall():
    real = normal(100, 8)
    assert metrics.precision_recall(real, real[:1].expand(100, -1)) == (1, 0.01)
    far = normal(100, 64) + 50  # where distances by way of a matrix product round to more than 0
    assert (metrics._distances(far, far).diagonal() == 0).all()


def test_the_larger_set_is_cut_to_the_smaller_whatever_its_order():
    classes = 100.0 * torch.arange(10).repeat(100)  # classes drawn in turn: a stride would see one
    real = torch.stack([classes, normal(1000)], dim=1)
    fake = torch.stack([classes[:100], normal(100, seed=1)], dim=1)
    precision, recall = metrics.precision_recall(real, fake)
    assert min(precision, recall) > 0.7
    assert metrics.precision_recall(fake, real) == (recall, precision)


def test_too_few_samples_for_precision_are_refused():
    assert metrics.precision_recall(normal(8, 2), normal(8, 2))
    with pytest.raises(UserError, match="8 pictures or more"):
        metrics.precision_recall(normal(100, 2), normal(7, 2))


# --- Inception score


def test_inception_score_of_sure_and_even_classes_is_their_number_and_of_constant_ones_is_1():
    assert metrics.inception_score(torch.eye(10).repeat(3, 1)) == pytest.approx(10)
    assert metrics.inception_score(torch.eye(10)[:1].repeat(30, 1)) == pytest.approx(1)
    assert metrics.inception_score(torch.full((30, 10), 0.1)) == pytest.approx(1)


def test_inception_score_is_the_exponential_of_the_mean_kl():
    probs = (2 * normal(40, 10)).softmax(dim=1)
    kl = (probs * (probs / probs.mean(dim=0)).log()).sum(dim=1)
    assert metrics.inception_score(probs) == pytest.approx(kl.mean().exp().item(), rel=1e-12)


# --- The shipped network


def test_the_asset_is_small_safe_to_load_and_states_its_accuracy():
    assert digit_network.ASSET.stat().st_size <= 1_000_000
    asset = torch.load(digit_network.ASSET, weights_only=True)
    assert asset["test_accuracy"] >= 0.99
    assert asset["features"].shape == (10_000, D)
    assert asset["features"].dtype == torch.uint8
    assert (
        asset["features"].amax(dim=0) == 255
    ).all()  # each feature uses its 8 bits, none is dead
    parameters = sum(p.numel() for p in digit_network.DigitNetwork().parameters())
    assert 75_000 < parameters < 85_000  # its docstring says 80,000


def test_stored_features_have_the_stored_mean_and_covariance():
    mu, cov, features = digit_network.shipped_reference()
    found_mu, found_cov = metrics.gaussian_statistics(features)
    step = digit_network.load_asset()["feature_scale"]
    assert ((found_mu - mu).abs() < step / 20).all()
    assert torch.allclose(found_cov, cov, atol=0.002 * cov.diagonal().max().item())
    assert metrics.frechet_distance(mu, cov, found_mu, found_cov) < 1e-3


@pytest.mark.skipif(not FULL_MNIST.is_dir(), reason="needs the full MNIST in ../shared/data")
def test_accuracy_and_reference_are_those_of_the_real_test_images():
    full = load_images("mnist", FULL_MNIST)
    features, probs = metrics.digit_features(full.test)
    accuracy = (probs.argmax(dim=1) == full.test_labels).double().mean().item()
    assert accuracy == pytest.approx(digit_network.load_asset()["test_accuracy"], abs=3e-4)
    mu, _, stored = digit_network.shipped_reference()
    step = digit_network.load_asset()["feature_scale"]
    assert torch.allclose(features.mean(dim=0), mu, atol=1e-4)
    assert ((features - stored).abs() <= 0.51 * step + 1e-3).all()


def test_features_depend_on_neither_batch_nor_colour_nor_dtype(digits):
    x = digits.test[:300]
    features, probs = metrics.digit_features(x)
    assert features.shape == (300, D)
    assert features.dtype == probs.dtype == torch.float64
    assert (features >= 0).all()
    assert torch.allclose(probs.sum(dim=1), torch.ones(300, dtype=torch.float64))
    for same in (x[:20], x[:20].expand(-1, 3, -1, -1), x[:20].double()):
        assert torch.allclose(metrics.digit_features(same)[0], features[:20], atol=1e-4)


def test_pictures_of_another_size_are_read_as_the_same_digits(digits):
    x, y = digits.test[:300], digits.test_labels[:300]
    large = nn.functional.interpolate(x, size=(56, 56), mode="bilinear")
    accuracy = (metrics.digit_features(large)[1].argmax(dim=1) == y).double().mean()
    assert accuracy > 0.97


def test_metrics_leave_random_state_modes_and_inputs_alone(digits):
    for cached in (
        digit_network.load_asset,
        digit_network.shipped_network,
        digit_network.shipped_reference,
    ):
        cached.cache_clear()  # building the network must not draw either
    samples = digits.test[:100].clone().requires_grad_()
    before, state = samples.detach().clone(), copy.deepcopy(torch.get_rng_state())
    metrics.sample_quality(samples, digits)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(samples.detach(), before)
    assert torch.is_grad_enabled()
    assert not digit_network.shipped_network().training


def test_autocast_of_the_caller_does_not_change_the_features(digits):
    x = digits.test[:50]
    plain, _ = metrics.digit_features(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(metrics.digit_features(x)[0], plain)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.full((4, 1, 28, 28), -1.0), r"pixels in \[0, 1\], got \[-1, -1\]"),
        (torch.full((4, 1, 28, 28), 1.01), r"pixels in \[0, 1\]"),
        (torch.full((4, 1, 28, 28), float("nan")), "finite"),
        (torch.full((4, 1, 28, 28), float("inf")), "finite"),
        (torch.zeros(4, 28, 28), "expected float pictures"),
        (torch.zeros(4, 2, 28, 28), "expected float pictures"),
        (torch.zeros(0, 1, 28, 28), "expected float pictures"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.uint8), "divide 8-bit ones by 255"),
    ],
)
def test_pictures_that_cannot_be_scored_are_refused_in_one_line(bad, message):
    with pytest.raises(UserError, match=message) as error:
        metrics.digit_features(bad)
    assert "\n" not in str(error.value)


def test_a_rounding_error_outside_the_range_is_forgiven():
    slightly = torch.full((2, 1, 28, 28), 1 + 5e-4)
    assert torch.equal(
        metrics.digit_features(slightly)[0], metrics.digit_features(slightly.clamp(0, 1))[0]
    )


# --- Sample quality


def test_held_out_digits_score_well_and_noise_does_not(digits):
    real = metrics.sample_quality(digits.test, digits)
    assert real["frechet_distance"] < 0.8  # 1,000 training images: 0.35
    assert abs(real["kernel_distance"]) < 0.05
    assert min(real["precision"], real["recall"]) > 0.8
    assert real["inception_score"] > 9.5
    assert real["confident_share"] > 0.98
    noisy = digits.test + 0.1 * torch.randn(
        digits.test.shape, generator=torch.Generator().manual_seed(0)
    )
    worse = metrics.sample_quality(noisy.clamp(0, 1), digits)
    assert worse["frechet_distance"] > 10 * real["frechet_distance"]
    assert worse["precision"] < real["precision"] - 0.2
    noise = torch.rand(500, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    worst = metrics.sample_quality(noise, digits)
    assert worst["frechet_distance"] > 50
    assert worst["kernel_distance"] > 5
    assert worst["precision"] == worst["recall"] == 0


def test_sample_quality_says_what_it_was_computed_on(digits):
    found = metrics.sample_quality(digits.test[:50], digits)  # fewer samples than features
    reference = digit_network.shipped_reference()[-1]
    samples, _ = metrics.digit_features(digits.test[:50])
    assert found["kernel_distance"] == metrics.kernel_distance(reference, samples)
    assert found["metrics_num_samples"] == 50
    assert found["metrics_reference"] == "MNIST test, 10000 images"
    assert found["metrics_num_reference"] == 10_000
    assert found["metrics_seconds"] > 0
    assert all(isinstance(value, float | int | str) for value in found.values())
    assert all(math.isfinite(v) for v in found.values() if not isinstance(v, str))


def test_other_data_sets_are_their_own_reference(digits):
    colour = digits.test[:200].expand(-1, 3, -1, -1)
    found = metrics.sample_quality(colour, images("folder:x", colour))
    assert found["metrics_reference"] == "folder:x test, 200 images"
    assert found["metrics_num_reference"] == 200
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-4)
    assert (found["precision"], found["recall"]) == (1, 1)


def test_sample_quality_of_too_few_samples_is_a_user_error(digits):
    with pytest.raises(UserError, match="8 pictures or more"):
        metrics.sample_quality(digits.test[:7], digits)


# --- Pairs of pictures, likelihoods, scores and codes


def test_psnr_is_that_of_the_known_squared_error_of_each_picture():
    x = torch.zeros(3, 1, 4, 4)
    y = torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1).expand_as(x)
    assert metrics.psnr(x, y)[:2].tolist() == pytest.approx([20, 40], rel=1e-5)
    assert metrics.psnr(x, y)[2] == math.inf


def test_ssim_of_constant_pictures_is_the_luminance_term():
    x, y = torch.full((2, 1, 16, 16), 0.5), torch.full((2, 1, 16, 16), 0.25)
    y[1] = 0.5
    term = (2 * 0.5 * 0.25 + 0.01**2) / (0.5**2 + 0.25**2 + 0.01**2)
    assert metrics.ssim(x, y).tolist() == pytest.approx([term, 1], rel=1e-4)
    assert metrics.ssim(x[:1], y[:1]).shape == (1,)
    with pytest.raises(UserError, match="sides of 11 or more"):
        metrics.ssim(x[..., :8, :8], y[..., :8, :8])


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ssim])
def test_pictures_that_are_no_pairs_are_refused(measure):
    with pytest.raises(UserError, match="one shape"):
        measure(torch.zeros(2, 1, 16, 16), torch.zeros(1, 1, 16, 16))


def test_a_uniform_guess_over_256_levels_costs_8_bits_per_dim():
    assert metrics.bits_per_dim(784 * math.log(256), 784) == pytest.approx(8)
    nats = torch.tensor([1.0, 2.0]) * math.log(2)
    assert metrics.bits_per_dim(nats, 2).tolist() == pytest.approx([0.5, 1])


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    normal_scores, anomalies = torch.tensor([0.0, 1, 2, 3]), torch.tensor([2.0, 2.5, 9])
    wins = sum(float(a > n) + 0.5 * float(a == n) for a in anomalies for n in normal_scores)
    assert metrics.auroc(normal_scores, anomalies) == pytest.approx(wins / 12)
    for bad in (torch.tensor([]), torch.tensor([float("nan")])):
        with pytest.raises(UserError, match="both kinds"):
            metrics.auroc(normal_scores, bad)


def test_probes_separate_what_is_separable():
    y = torch.arange(400) % 4
    corners = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    codes = corners[y] + 0.05 * normal(400, 2).float()
    scale = torch.tensor([1.0, 1e-3])  # standardised: a small code counts as much as a large one
    found = metrics.probe_accuracy(codes[:300] * scale, y[:300], codes[300:] * scale, y[300:])
    assert found["linear"] == 1
    xor = y.remainder(3).eq(0).long()  # corners 00 and 11 against 01 and 10
    found = metrics.probe_accuracy(codes[:300], xor[:300], codes[300:], xor[300:])
    assert found["linear"] < 0.8
    assert found["nearest_neighbour"] == 1
    with pytest.raises(UserError, match="finite"):
        metrics.probe_accuracy(codes * math.nan, y, codes, y)


def test_probes_of_unlearnable_codes_finish_without_a_warning():
    y = torch.randint(10, (600,), generator=torch.Generator().manual_seed(0))
    codes = torch.cat([normal(600, 6) * 1e4, torch.ones(600, 2)], dim=1)  # two dead codes
    found = metrics.probe_accuracy(codes[:500], y[:500], codes[500:], y[500:])
    assert all(accuracy < 0.3 for accuracy in found.values())


# --- Making the asset


def test_augmentation_moves_pixels_a_little_and_keeps_the_range(digits):
    x = digits.test[:64]
    moved = digit_network.augment(x, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6
    where = torch.arange(28.0)

    def centre(pictures):
        mass = pictures.sum(dim=(1, 2, 3))
        row = (pictures.sum(dim=(1, 3)) * where).sum(dim=1) / mass
        return torch.stack([row, (pictures.sum(dim=(1, 2)) * where).sum(dim=1) / mass])

    shift = (centre(moved) - centre(x)).abs()
    assert 1.4 < shift.max() < 2.8  # 2 pixels, and what turning and scaling add off the middle
    assert 0.6 < shift.mean() < 1.4


def test_training_is_seeded_and_learns(digits):
    x, y = digits.train[:512], digits.train_labels[:512]
    state = torch.get_rng_state()
    first = digit_network.train(x, y, epochs=4, seed=0, batch_size=64)
    one, two = (digit_network.train(x, y, epochs=1, seed=1, batch_size=128) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not one.training
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    asset = digit_network.make_asset(first, digits.test[:300], digits.test_labels[:300])
    assert asset["test_accuracy"] > 0.7
    rounded = digit_network.network_from(asset["weights"])
    features, _ = digit_network.evaluate(rounded, digits.test[:300])
    restored = asset["features"].double() * asset["feature_scale"]
    assert ((restored - features).abs() <= asset["feature_scale"] * 0.5001).all()
    assert torch.equal(asset["mean"], features.mean(dim=0))
