"""Where numbers of half the size are faster."""

import torch


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself.

    Processors without AVX512-BF16 imitate it: a training step of the networks here then takes three to thirteen times
    as long as in float32.

    Args:
        device: A CPU or an accelerator.

    Example:
        >>> isinstance(fast_bfloat16(torch.device("cpu")), bool)
        True
    """
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
