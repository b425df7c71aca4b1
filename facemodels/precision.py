"""Where numbers of half the size are faster."""

import platform
from functools import cache
from pathlib import Path

import torch


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device computes faster in bfloat16 than in float32.

    Of CPUs those with AMX, and AMD's with AVX512-BF16. On a Xeon without AMX convolutions of the networks' sizes took
    1.5 times as long in bfloat16 as in float32. CPUs with neither imitate it, which takes three to thirteen times as
    long.

    Args:
        device: A CPU or an accelerator.

    Example:
        >>> isinstance(fast_bfloat16(torch.device("cpu")), bool)
        True
    """
    if device.type == "cpu":
        tiles = torch.cpu._is_amx_tile_supported()
        return tiles or (torch.cpu._is_avx512_bf16_supported() and _maker() == "AuthenticAMD")
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


@cache
def _maker() -> str:
    """The maker of the CPU as it names itself, or nothing."""
    names = platform.processor()  # Windows: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD"
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text().splitlines()
        names = next((line for line in lines if line.startswith("vendor_id")), "")
    return next((maker for maker in ("AuthenticAMD", "GenuineIntel") if maker in names), "")
