"""What this machine can compute on, and how."""

import os

import torch

from .errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device that a --device flag means.

    Raises:
        UserError: if the name is unknown or this machine has no such device.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind in there if there[kind])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in there:
        raise UserError(f"--device: expected auto, cpu, cuda, cuda:N or mps, got {name!r}")
    if device.type == "cuda" and device.index is None:  # torchrun: each process its own GPU
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if not there[device.type] or (
        device.type == "cuda" and device.index >= torch.cuda.device_count()
    ):
        raise UserError(f"--device: this machine has no {device}: use --device auto or cpu")
    return device


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 autocast is faster than float32 here.

    True on GPUs with bfloat16 and on CPUs with AVX512-BF16 or AMX instructions; elsewhere a CPU
    emulates bfloat16 and loses.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in names)
    return False
