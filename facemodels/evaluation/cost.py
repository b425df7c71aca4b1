"""What a network costs: weights, and milliseconds an image on the machine at hand."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.benchmark import Timer

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.editing import transfer

BATCH = 32


@dataclass(frozen=True)
class Cost:
    """Size and speed of a network.

    Attributes:
        weights: Numbers of weights by part.
        encode_ms: Milliseconds to encode one face.
        decode_ms: To decode one, with all three streams.
        edit_ms: To edit one: encode source and target, exchange a code, decode.
        encode_batch_ms: To encode one of 32 faces encoded together.
        decode_batch_ms: To decode one of 32.
        threads: Threads that torch used; the times hold for this machine alone.
        device: What they were taken on.
    """

    weights: dict[str, int]
    encode_ms: float
    decode_ms: float
    edit_ms: float
    encode_batch_ms: float
    decode_batch_ms: float
    threads: int
    device: str

    @property
    def total(self) -> int:
        """All weights."""
        return sum(self.weights.values())

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"total": self.total}


@torch.no_grad()
def cost(model: NeuroTensorialAutoencoder, seconds: float = 0.5) -> Cost:
    """Count a network's weights and time it.

    Args:
        model: The network.
        seconds: How long each of five timings lasts at least; medians are given.

    Example:
        >>> from facemodels.config import NetworkConfig
        >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5))
        >>> cost(model, seconds=0.001).weights["heads"] == sum(weight.numel() for weight in model.heads.parameters())
        True
    """
    device = model.encoder.head.weight.device
    many = torch.rand(BATCH, 3, model.config.size, model.config.size, device=device)
    one = many[:1]
    codes, code = model.encode(many), model.encode(one)
    names = {"model": model, "transfer": transfer, "one": one, "many": many, "code": code, "codes": codes}

    def milliseconds(statement: str) -> float:
        timer = Timer(statement, globals=names, num_threads=torch.get_num_threads())
        return 1000 * timer.blocked_autorange(min_run_time=seconds).median

    return Cost(
        weights=weights_by_part(model),
        encode_ms=milliseconds("model.encode(one)"),
        decode_ms=milliseconds("model.decode(code)"),
        edit_ms=milliseconds("transfer(model, one, one, 'expression')"),
        encode_batch_ms=milliseconds("model.encode(many)") / BATCH,
        decode_batch_ms=milliseconds("model.decode(codes)") / BATCH,
        threads=torch.get_num_threads(),
        device=str(device),
    )


def weights_by_part(model: nn.Module) -> dict[str, int]:
    """Numbers of weights of the parts that a network is made of.

    Example:
        >>> weights_by_part(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)))
        {'0': 9, '2': 4}
    """
    counts: Counter[str] = Counter()
    for name, weight in model.named_parameters():
        counts[name.split(".")[0]] += weight.numel()
    return dict(counts)
