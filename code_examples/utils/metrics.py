"""How good are samples, reconstructions and codes: plain functions on tensors.

Sample quality is measured on the features of the digit network that ships beside this file (see
`digit_network.py`), so that everybody's numbers compare without a download; never compare them with
a published FID, which uses other features. All depend on the number of samples, which is stated.
"""

import math
import time
import warnings
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import UserError

if TYPE_CHECKING:
    from .data import ImageData

SHIPPED_REFERENCE = ("mnist", "mnist5k")  # data sets scored against MNIST's 10,000 test images
CONFIDENT = 0.8  # a sample whose likeliest class is above this reads as a digit
CHUNK = 1000  # rows of a pairwise matrix held at once: 80 MB against 10,000 others


def _as_digits(x: Tensor) -> Tensor:
    """Any pictures (N, C, H, W) in [0, 1] as grey float32 ones, (N, 1, 28, 28)."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.numel() == 0 or not x.is_floating_point():
        raise UserError(
            "expected float pictures of shape (N, 1 or 3, H, W), "
            f"got {x.dtype} of {tuple(x.shape)}: reshape them, divide 8-bit ones by 255"
        )
    x = x.detach().float()
    low, high = x.min().item(), x.max().item()
    if not math.isfinite(high - low):
        raise UserError("expected finite pixels, got NaN or infinity: did the training diverge?")
    if low < -1e-3 or high > 1 + 1e-3:
        got = f"[{low:.3g}, {high:.3g}]"
        raise UserError(f"expected pixels in [0, 1], got {got}: map [-1, 1] by (x + 1) / 2")
    if x.shape[1] == 3:  # luma, the weights of ITU-R BT.601
        x = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    if x.shape[-2:] != (28, 28):
        x = F.interpolate(x, size=(28, 28), mode="bilinear", antialias=True, align_corners=False)
    return x.clamp(0, 1)


def digit_features(x: Tensor, device: str | torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Features (N, D) and class probabilities (N, 10) of the digit network, float64 on the CPU.

    Args:
        x: Pictures (N, C, H, W) in [0, 1]; colour becomes grey, other sizes become 28x28.
        device: Where the network runs; the CPU unless given, for the same numbers everywhere.

    Raises:
        UserError: for another shape, integers, pixels that are not finite or not in [0, 1].
    """
    from .digit_network import evaluate, shipped_network

    features, logits = evaluate(shipped_network(str(device or "cpu")), _as_digits(x))
    return features, logits.softmax(dim=1)


def gaussian_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D), float64, of features (N, D).

    Raises:
        UserError: for fewer than 2 samples, which have no covariance.
    """
    if features.ndim != 2 or len(features) < 2:
        raise UserError(f"expected 2 or more rows (N, D), got {tuple(features.shape)}: draw more")
    features = features.double()
    mu = features.mean(dim=0)
    centred = features - mu
    return mu, centred.T @ centred / (len(features) - 1)


def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """Squared 2-Wasserstein distance of two Gaussians, >= 0, in squared units of the features.

    |mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), notes/01 eq. (1.57); Heusel et al. 2017,
    arXiv:1706.08500, eq. (6).

    C1 C2 is not symmetric, and its general matrix root turns complex or fails when a covariance
    lacks rank, as with fewer samples than features. But C1 C2 has the eigenvalues of the symmetric
    C1^(1/2) C2 C1^(1/2), none below 0: their roots sum to the same trace, and `eigh` is real and
    stable for every rank. The estimate is biased upwards, by about 1 / N: compare equal numbers.
    """
    mu1, cov1, mu2, cov2 = (t.double() for t in (mu1, cov1, mu2, cov2))
    values, vectors = torch.linalg.eigh((cov1 + cov1.T) / 2)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = root @ cov2 @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance = (mu1 - mu2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return max(distance.item(), 0.0)  # rounding may leave -1e-12 between equal Gaussians


def _moment_sums(f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over the samples of x, x x^T and x x x, (D,), (D, D), (D * D, D), of x = f / sqrt(D)."""
    x = f / math.sqrt(f.shape[1])
    third = sum((r[:, :, None] * r[:, None]).flatten(1).T @ r for r in x.split(CHUNK))
    return x.sum(dim=0), x.T @ x, third


def _kernel_sum(f: tuple[Tensor, ...], g: tuple[Tensor, ...]) -> float:
    """Sum of (x.y)^3 + 3 (x.y)^2 + 3 x.y over all pairs: products of the moments, no pair built."""
    return sum(w * (a * b).sum().item() for w, a, b in zip((3, 3, 1), f, g, strict=True))


@cache
def _shipped_sums() -> tuple[Tensor, Tensor, Tensor]:
    """The sums of MNIST's reference, once: nearly all the time of a kernel distance to it."""
    from .digit_network import shipped_reference

    return _moment_sums(shipped_reference()[-1])


def kernel_distance(
    f: Tensor, g: Tensor, *, sums_f: tuple[Tensor, Tensor, Tensor] | None = None
) -> float:
    """Unbiased squared maximum mean discrepancy of features (N, D) and (M, D); below 0 by chance.

    The kernel is (x.y / D + 1)^3, Binkowski et al. 2018, arXiv:1801.01401 (KID): it compares the
    first three moments, where the Frechet distance compares two. A sample is never
    paired with itself, which makes the mean over draws from equal distributions exactly 0 for any
    N and M. All samples are used, where the paper averages over blocks.

    Args:
        f, g: The features.
        sums_f: `_moment_sums` of f, if they are known already.

    Raises:
        UserError: for fewer than 2 samples on a side.
    """
    n, m = len(f), len(g)
    if min(n, m) < 2:
        raise UserError(f"expected 2 samples or more a side, got {n} and {m}: draw more samples")
    f, g = f.double(), g.double()
    own_f, own_g = (((t * t).sum(dim=1) / t.shape[1] + 1).pow(3).sum().item() for t in (f, g))
    sums_f, sums_g = sums_f or _moment_sums(f), _moment_sums(g)
    within_f = (n * n + _kernel_sum(sums_f, sums_f) - own_f) / (n * (n - 1))
    within_g = (m * m + _kernel_sum(sums_g, sums_g) - own_g) / (m * (m - 1))
    return within_f + within_g - 2 * (1 + _kernel_sum(sums_f, sums_g) / (n * m))


def _distances(f: Tensor, g: Tensor) -> Tensor:
    """Euclidean distances (N, M), exactly 0 between equal rows: collapsed samples have radius 0."""
    return torch.cdist(f, g, compute_mode="donot_use_mm_for_euclid_dist")


def _coverage(centres: Tensor, points: Tensor, *, k: int) -> float:
    """Share of the points inside a ball about a centre that reaches its k-th nearest centre."""
    parts = centres.split(CHUNK)
    # k + 1, since the nearest of all is the centre itself, which is not its own neighbour
    nearest = [_distances(part, centres).topk(k + 1, largest=False).values for part in parts]
    radii = torch.cat(nearest)[:, -1]
    inside = [(_distances(p, centres) <= radii).any(dim=1) for p in points.split(CHUNK)]
    return torch.cat(inside).double().mean().item()


def _subset(f: Tensor, size: int) -> Tensor:
    """A fixed random choice of rows; a stride could fall in step with classes drawn in turn."""
    order = torch.randperm(len(f), generator=torch.Generator().manual_seed(0))
    return f if len(f) == size else f[order[:size].to(f.device)]


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall, both in [0, 1], of features (N, D) and (M, D).

    Kynkaanniemi et al. 2019, arXiv:1904.06991, eqs. (1) and (2): precision is the share of fakes
    within the k-th neighbour's distance of some real sample, recall the share of reals within that
    of some fake. The larger set is cut to the smaller's size (a fixed random subset), since more
    samples make smaller balls. Both numbers still depend on that size.

    Raises:
        UserError: for fewer than 2 k + 2 samples on a side.
    """
    size = min(len(real), len(fake))
    if size < 2 * k + 2:
        raise UserError(
            f"expected {2 * k + 2} pictures or more a side for precision and recall, got "
            f"{len(real)} real and {len(fake)} generated: take more"
        )
    real, fake = _subset(real.double(), size), _subset(fake.double(), size)
    return _coverage(real, fake, k=k), _coverage(fake, real, k=k)


def inception_score(probs: Tensor) -> float:
    """exp of the mean KL(p(y|x) || p(y)), in [1, classes], of probabilities (N, classes).

    Salimans et al. 2016, arXiv:1606.03498, as the difference of two entropies, over all samples at
    once. High when each sample is clearly one class and all classes occur; blind to anything else.
    """
    probs = probs.double()
    marginal = torch.special.entr(probs.mean(dim=0)).sum()
    return (marginal - torch.special.entr(probs).sum(dim=1).mean()).exp().item()


def sample_quality(samples: Tensor, reference: "ImageData") -> dict[str, float | int | str]:
    """All sample metrics as a flat dict for metrics.json.

    The reference is MNIST's 10,000 test images for `mnist` and `mnist5k`, otherwise the test split
    of the data set itself, in [0, 1]. On other pictures the features remain those of a *digit*
    network: a fair ruler for small grey pictures, a rough one for colour. With D = 64 samples or
    fewer the covariance lacks rank: the Frechet distance is finite, but mostly bias.

    Args:
        samples: Generated pictures (N, C, H, W) in [0, 1].
        reference: The data set that they imitate.

    Returns:
        frechet_distance, kernel_distance, precision, recall, inception_score, confident_share
        (with a class above 0.8), metrics_num_samples, _reference, _num_reference, _seconds.

    Raises:
        UserError: for pictures outside [0, 1] or fewer than 8 of them.
    """
    start = time.perf_counter()
    features, probs = digit_features(samples)
    name, mu, cov, real = _statistics(reference)
    precision, recall = precision_recall(real, features)
    sums = _shipped_sums() if reference.name in SHIPPED_REFERENCE else None
    return {
        "frechet_distance": frechet_distance(mu, cov, *gaussian_statistics(features)),
        "kernel_distance": kernel_distance(real, features, sums_f=sums),
        "precision": precision,
        "recall": recall,
        "inception_score": inception_score(probs),
        "confident_share": (probs.amax(dim=1) > CONFIDENT).double().mean().item(),
        "metrics_num_samples": len(features),
        "metrics_reference": f"{name} test, {len(real)} images",
        "metrics_num_reference": len(real),
        "metrics_seconds": time.perf_counter() - start,
    }


def quick_frechet_distance(samples: Tensor, reference: "ImageData") -> float:
    """The Frechet distance of `sample_quality` alone, in a fraction of the time: for curves."""
    features, _ = digit_features(samples)
    _, mu, cov, _ = _statistics(reference)
    return frechet_distance(mu, cov, *gaussian_statistics(features))


def _statistics(reference: "ImageData") -> tuple[str, Tensor, Tensor, Tensor]:
    """Name, mean, covariance and features (N, D) of the real pictures to compare with."""
    from .digit_network import shipped_reference

    if reference.name in SHIPPED_REFERENCE:
        return "MNIST", *shipped_reference()
    real, _ = digit_features(reference.test)
    return reference.name, *gaussian_statistics(real), real


def _check_pair(x: Tensor, y: Tensor, smallest: int = 1) -> None:
    """Refuses two batches of pictures that cannot be compared one by one."""
    if x.ndim != 4 or x.shape != y.shape or min(x.shape[-2:]) < smallest:
        raise UserError(
            f"expected two batches (B, C, H, W) of one shape, sides of {smallest} or more, got "
            f"{tuple(x.shape)} and {tuple(y.shape)}: compare each picture with its own original"
        )


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pairs in [0, 1], (B,) dB; inf if equal; notes/01 eq. (1.49).

    Raises:
        UserError: unless both are (B, C, H, W) of one shape.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    _check_pair(x, y)
    return peak_signal_noise_ratio(x, y, data_range=1.0, dim=(1, 2, 3), reduction="none")


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of each pair of pictures in [0, 1], (B,), at most 1 (if equal).

    Raises:
        UserError: unless both are (B, C, H, W) of one shape with sides of at least 11 pixels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    _check_pair(x, y, smallest=11)  # the Gaussian window; a smaller picture would give NaN
    value = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")
    return value.reshape(len(x))


def bits_per_dim(nats: Tensor | float, dims: int) -> Tensor | float:
    """Bits a dimension of a negative log-likelihood in nats; notes/01 eq. (1.11)."""
    return nats / (dims * math.log(2))


def auroc(scores_normal: Tensor, scores_anomaly: Tensor) -> float:
    """Area under the ROC curve: the chance that an anomaly scores above a normal one, ties half.

    notes/01 eq. (1.39).

    Raises:
        UserError: if a side is empty or a score is not a number.
    """
    from sklearn.metrics import roc_auc_score

    scores = torch.cat([scores_normal.flatten(), scores_anomaly.flatten()]).detach().cpu().double()
    anomaly = torch.arange(len(scores)) >= scores_normal.numel()
    if not 0 < scores_normal.numel() < len(scores) or scores.isnan().any():
        kinds = f"{scores_normal.numel()} normal, {scores_anomaly.numel()} anomalous, or NaN"
        raise UserError(f"expected scores of both kinds, got {kinds}: check split and model")
    return float(roc_auc_score(anomaly.numpy(), scores.numpy()))


def probe_accuracy(
    train_codes: Tensor, train_labels: Tensor, test_codes: Tensor, test_labels: Tensor
) -> dict[str, float]:
    """Test accuracies in [0, 1] of two simple classifiers on codes (N, L).

    Returns:
        linear: logistic regression on codes standardised by the training set;
        nearest_neighbour: the label of the nearest training code (Euclidean, not standardised).

    Raises:
        UserError: if a code is not finite or the training labels are all the same.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not (train_codes.isfinite().all() and test_codes.isfinite().all()):
        raise UserError("expected finite codes, got NaN or infinity: did the training diverge?")
    if len(train_labels.unique()) < 2:
        raise UserError("expected labels of 2 classes or more, got one: leave out the probe")
    x, y, x_test, y_test = (
        t.detach().cpu().numpy() for t in (train_codes, train_labels, test_codes, test_labels)
    )
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-3))
    probes = {"linear": linear, "nearest_neighbour": KNeighborsClassifier(n_neighbors=1)}
    with warnings.catch_warnings():  # hardly any pictures a class: said on a folder of 40
        warnings.filterwarnings("ignore", message="The number of unique classes")
        return {name: float(p.fit(x, y).score(x_test, y_test)) for name, p in probes.items()}
