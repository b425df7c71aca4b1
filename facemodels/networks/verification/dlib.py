"""The residual network of dlib as a torch module, its weights read from the files of face-api."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from facemodels.errors import InputError
from facemodels.networks.verification.verifier import Facts, Verifier, find_weights

FACTS = Facts(
    name="dlib's residual network",
    side=150,
    five=((47.82, 46.6), (100.18, 46.6), (74.0, 76.6), (50.4, 103.0), (97.6, 103.0)),
    inside="RGB, 0 to 255, less the mean colour (122.782, 117.001, 104.298), divided by 256",
    features=128,
    threshold=0.93,
    threshold_source="2 in 1000 false accepts on pairs of aligned 64x64 crops of CelebA; errors are equal at 0.90;"
    " dlib's own is a distance of 0.6 between `Verifier.describe`'s vectors",
    licence="weights: CC0 (dlib) in the MIT-licensed files of face-api",
    source="Davis King, dlib, after He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
)

_BLOCKS = (
    *(("conv32_1", 32, 32), ("conv32_2", 32, 32), ("conv32_3", 32, 32)),
    *(("conv64_down", 32, 64), ("conv64_1", 64, 64), ("conv64_2", 64, 64), ("conv64_3", 64, 64)),
    *(("conv128_down", 64, 128), ("conv128_1", 128, 128), ("conv128_2", 128, 128)),
    *(("conv256_down", 128, 256), ("conv256_1", 256, 256), ("conv256_2", 256, 256), ("conv256_down_out", 256, 256)),
)
_MEAN = (122.782, 117.001, 104.298)
_MANIFEST = "face_recognition_model-weights_manifest.json"
_ADVICE = (
    f"take face_recognition_model.bin and {_MANIFEST} from the folder `model` of the npm package"
    " @vladmandic/face-api and give the path of the .bin file"
)


class _Scaled(nn.Module):
    """A convolution followed by a scale and a shift of each channel."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int):
        super().__init__()
        self.convolution = nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2 if stride == 1 else 0)
        self.scale = nn.Parameter(torch.ones(outside, 1, 1))
        self.shift = nn.Parameter(torch.zeros(outside, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x) * self.scale + self.shift


class _Residual(nn.Module):
    """Two convolutions added to their input, which a block that halves the picture reduces by averaging."""

    def __init__(self, inside: int, outside: int, *, halving: bool):
        super().__init__()
        self.halving = halving
        self.conv1 = _Scaled(inside, outside, 3, 2 if halving else 1)
        self.conv2 = _Scaled(outside, outside, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.relu(self.conv1(x)))
        if self.halving:
            x = F.avg_pool2d(x, 2)
            # dlib adds what is missing of either as zeros: channels, rows below, columns at the right
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
            out = F.pad(out, (0, x.shape[3] - out.shape[3], 0, x.shape[2] - out.shape[2]))
        return F.relu(out + x)


class _Body(nn.Module):
    """A convolution, fourteen residual blocks, the mean over the picture and a linear layer."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv32_down = _Scaled(3, 32, 7, 2)
        self.blocks = nn.ModuleDict(
            {name: _Residual(inside, outside, halving="down" in name) for name, inside, outside in _BLOCKS}
        )
        self.fc = nn.Linear(256, FACTS.features, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])

    def forward(self, images: Float[Tensor, "n 3 150 150"]) -> Float[Tensor, "n 128"]:
        out = F.relu(self.conv32_down((images * 255 - self.mean) / 256))
        out = F.max_pool2d(out, 3, 2)
        for block in self.blocks.values():
            out = block(out)
        return self.fc(out.mean((2, 3)))


def load_dlib(path: str | os.PathLike[str] | None = None) -> Verifier:
    """The residual network of dlib: 128 numbers, input 150x150 RGB, published threshold 0.6 of the distance.

    Args:
        path: The file `face_recognition_model.bin` of face-api; its manifest lies beside it.

    Raises:
        InputError: There is no such file, or it is another network's.
    """
    file = find_weights(FACTS.name, path, {}, _ADVICE)
    body = _Body().eval()
    try:
        weights = dict(_weights(file))
        with torch.no_grad():
            _fill(body.conv32_down, "conv32_down", weights)
            for name, block in body.blocks.items():
                assert isinstance(block, _Residual)
                _fill(block.conv1, f"{name}/conv1", weights)
                _fill(block.conv2, f"{name}/conv2", weights)
            _copy(body.fc.weight, weights["fc"].T)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{file} is not {FACTS.name} ({error}); {_ADVICE}") from error
    return Verifier(body, FACTS)


def _fill(layer: _Scaled, name: str, weights: dict[str, np.ndarray]) -> None:
    _copy(layer.convolution.weight, weights[f"{name}/conv/filters"].transpose(3, 2, 0, 1))  # from (h, w, in, out)
    assert layer.convolution.bias is not None
    _copy(layer.convolution.bias, weights[f"{name}/conv/bias"])
    _copy(layer.scale, weights[f"{name}/scale/weights"][:, None, None])
    _copy(layer.shift, weights[f"{name}/scale/biases"][:, None, None])


def _copy(parameter: Tensor, value: np.ndarray) -> None:
    if parameter.shape != value.shape:
        raise ValueError(f"a weight has shape {value.shape} instead of {tuple(parameter.shape)}")
    parameter.copy_(torch.from_numpy(np.ascontiguousarray(value)))


def _weights(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and values of the weights that face-api's manifest describes, one after the other in the file."""
    manifest = json.loads((file.parent / _MANIFEST).read_text())
    data = file.read_bytes()
    position = 0
    for entry in manifest[0]["weights"]:
        quantization = entry.get("quantization")
        stored = np.dtype(quantization["dtype"] if quantization else entry["dtype"])
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(data, stored, count, position).astype(np.float32)
        position += count * stored.itemsize
        if quantization:
            values = values * np.float32(quantization["scale"]) + np.float32(quantization["min"])
        yield entry["name"], values.reshape(entry["shape"])
