"""Which device computes, and in which precision: by what the machine can do, not by hope."""

from __future__ import annotations

import torch

from dpo_cli.errors import ModelError

SMALL = 30_000_000
"""Parameters below which float32 is taken: the products of a small model are too small to gain, and its answers
are the ones that rounding changes."""


def choose_device(wanted: str) -> torch.device:
    """The device to compute on.

    Args:
        wanted: "cpu", "cuda", "cuda:N", "mps", or "auto": the first of CUDA, MPS and CPU that is there.

    Raises:
        ModelError: If the wanted device is not there, or there is none of that name.
    """
    there = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if wanted == "auto":
        return torch.device(next(name for name, count in there.items() if count))
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ModelError(
            f"--device {wanted}: is not a device", hint="Use auto, cpu, cuda, cuda:N or mps."
        ) from None
    if (device.index or 0) >= there.get(device.type, 0):
        raise ModelError(
            f"--device {wanted}: is not available here", hint="Remove --device to use what is available."
        )
    return device


def choose_dtype(wanted: str, device: torch.device, *, parameters: int) -> torch.dtype:
    """The precision to multiply in.

    Args:
        wanted: "float32", "bfloat16", "float16", or "auto".
        device: Where.
        parameters: Size of the model.

    Returns:
        For "auto", bfloat16 where the device multiplies it fast and the model is large enough to gain from it.

    Raises:
        ModelError: If float16 is wanted on a CPU, whose products do not have it.
    """
    if wanted == "float16" and device.type == "cpu":
        raise ModelError("--dtype float16: is for GPUs only", hint="Use bfloat16 or float32 on a CPU.")
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    return torch.bfloat16 if parameters >= SMALL and multiplies_bfloat16_fast(device) else torch.float32


def multiplies_bfloat16_fast(device: torch.device) -> bool:
    """Whether bfloat16 products run on units of their own: CUDA from Ampere on, CPUs with AVX512_BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        can = torch.cpu.get_capabilities()
        return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    return False
