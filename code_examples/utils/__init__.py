"""The plumbing that all chapters share; what a model *is* never stands here."""

from .data import DENSITIES, IMAGE_DATASETS, ImageData, density, load_images, without_class
from .errors import UserError
from .flags import ROOT, Config, check_number, cli
from .metrics import (
    auroc,
    bits_per_dim,
    probe_accuracy,
    psnr,
    quick_frechet_distance,
    sample_quality,
    ssim,
)
from .models import grad_norm, in_parts, nearest, unwrapped, update_ema
from .pictures import animation, cloud, image_grid, image_rows, strips
from .plotting import (
    bars,
    curve_panels,
    curves,
    density_2d,
    grid_2d,
    latent_scatter,
    scatter_2d,
    spectrograms,
    vector_field_2d,
)
from .run import Run, start
