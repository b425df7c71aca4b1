"""Copies of a network for inference: small checkpoints, torch.export programs, ONNX files.

Editing needs the encoder and the decoders of face, mask and background. The cores of streams 1 and 3, most of a
network's numbers, serve training and the 3D shape; they are left out unless asked for.

Programs and ONNX files come in pairs, whose tensors are called as in Python:

    encoder    images                                        ->  codes.identity, codes.context.indices.0, ...
    decoder    codes.identity, codes.context.indices.0, ...  ->  image, face, albedo, normals, shading, mask, ...

They need nothing of this package, and ONNX files no torch. The number of faces is free.
"""

import contextlib
import dataclasses
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import multilinear
from facemodels.autoencoder import NeuroTensorialAutoencoder, check_images
from facemodels.codes import Codes
from facemodels.errors import InputError
from facemodels.evaluation.measures import psnr
from facemodels.files import whole_file
from facemodels.model_card import EXPORTED
from facemodels.pretrained import MORPHABLE, WEIGHTS

PARTS = ("image", "face", "albedo", "normals", "shading", "mask", "face_mask", "background")
"""What a decoder returns: the pictures of a `Rendering` that need no core."""

OPSET = 18
"""Version of ONNX's operators; runtimes know it since 2023."""

_FACES = 8  # rendered ones, to compare pictures on

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Agreement:
    """How like the network's own pictures others are.

    Pooling keeps where its maxima were. Where two values are nearly equal, rounding may take the other one, and single
    pixels of background and mask move: the largest difference says less than the mean.

    Attributes:
        decibels: Peak signal-to-noise ratio, mean over the pictures; at most 100.
        largest: Largest difference of a pixel, of 1.
    """

    decibels: float
    largest: float

    @classmethod
    def of(cls, found: Float[Tensor, "n 3 h w"], expected: Float[Tensor, "n 3 h w"]) -> "Agreement":
        """Of two batches of pictures."""
        return cls(float(psnr(found, expected).mean()), float((found - expected).abs().max()))

    def __str__(self) -> str:
        return f"{self.decibels:.1f} dB on average, {self.largest:.1e} at the worst pixel"


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        path: Directory.
        sizes: Bytes of every file with numbers by name.
        original_size: Bytes of the network's weights in float32.
        agreement: Of pictures that the weights, the programs and the ONNX files encode and decode, as far as they were
            written, with the network's own.
    """

    path: Path
    sizes: dict[str, int]
    original_size: int
    agreement: dict[str, Agreement]

    def lines(self) -> list[str]:
        """The report as text."""
        sizes = [f"{name:20}{size / 1e6:8.2f} MB" for name, size in self.sizes.items()]
        sizes[0] += f", of {self.original_size / 1e6:.2f} MB in float32"
        return sizes + [
            f"{name:20}pictures like the network's own: {agreement}" for name, agreement in self.agreement.items()
        ]


class EncoderProgram(nn.Module):
    """The encoder with named tensors.

    Args:
        model: A network, of whose weights it takes a copy.
    """

    def __init__(self, model: NeuroTensorialAutoencoder):
        super().__init__()
        looks_behind = ("mask",) if model.config.cut_background else ()
        self.model = _only(model, "encoder", "heads", *looks_behind)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Tensors:
        """`codes.to_tensors()` of `encode(images)`, but for what no decoder reads; every name begins with "codes."."""
        tensors = self.model.encode(images).to_tensors()
        adds = self.model.config.skips == "add"
        return {f"codes.{name}": tensor for name, tensor in tensors.items() if adds or ".skips." not in name}


class DecoderProgram(nn.Module):
    """The decoders with named tensors.

    Args:
        model: A network, of whose weights it takes a copy.
    """

    def __init__(self, model: NeuroTensorialAutoencoder):
        super().__init__()
        self.model = _only(model, "albedo", "normals", "mask", "background", "identity_of_expression")

    def forward(self, codes: Tensors) -> Tensors:
        """The pictures called `PARTS`, of what `EncoderProgram` returned."""
        named = Codes.from_tensors({name.removeprefix("codes."): tensor for name, tensor in codes.items()})
        rendering = self.model.decode(named)
        return {name: getattr(rendering, name) for name in PARTS}


@torch.no_grad()
def export(
    model: NeuroTensorialAutoencoder,
    out: str | os.PathLike[str],
    *,
    cores: bool = False,
    pt2: bool = False,
    onnx: bool = False,
    morphable: bool | None = None,
    facts: Mapping[str, Any] | None = None,
    images: Float[Tensor, "n 3 h w"] | None = None,
) -> Exported:
    """Write a copy of a network for inference, and compare its pictures with the network's.

    The copy is a checkpoint like any other, but with weights in float16; `from_pretrained` reads them in float32.
    Programs and ONNX files hold the float32 weights.

    Args:
        model: A trained network.
        out: Directory; made if it does not exist.
        cores: Keep the cores of streams 1 and 3. Without them `Rendering.shape`, `frontal` and `frontal_normals` are
            None.
        pt2: Also write encoder.pt2 and decoder.pt2, which `torch.export.load` reads.
        onnx: Also write encoder.onnx and decoder.onnx; needs the extra `export`.
        morphable: Keep the morphable model, with which the coefficients make vertices also without cores; by default
            beside the cores. Without it `from_pretrained` must be given one to make vertices; its licence may not let
            you pass it on.
        facts: What the model card should say; the keyword arguments of `facemodels.model_card.model_card`. By default
            the card of the network is kept.
        images: Aligned crops in [0, 1], at least two, to compare pictures on; by default eight rendered faces.

    Raises:
        InputError: A package is missing, a weight is too large for float16 or not finite, the network has no cores or
            no morphable model to keep, or the disk is full or cannot be written to.
        ValueError: The images have another shape, or there is only one.

    Example:
        >>> import tempfile
        >>> from facemodels.config import NetworkConfig
        >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5))
        >>> with tempfile.TemporaryDirectory() as path:
        ...     exported = export(model, path, images=torch.rand(2, 3, 64, 64))
        ...     small = NeuroTensorialAutoencoder.from_pretrained(path)
        >>> exported.agreement["model.safetensors"].decibels > 40
        True
        >>> exported.sizes["model.safetensors"] < exported.original_size / 2, small.config.cores
        (True, False)
    """
    if onnx:
        _check_packages()
    if morphable and model.morphable is None:
        raise InputError("the network carries no morphable model to keep; take the checkpoint it was made of")
    images = _rendered_faces(model.config.size) if images is None else images
    check_images("export", images, model.config.size)
    if len(images) < 2:
        raise ValueError("export: needs at least two images, so that the number of faces stays free; repeat the one")
    network = inference_copy(model)
    images = images.to("cpu", torch.float32)
    expected = network.decode(network.encode(images)).image

    copy = inference_copy(model, cores=True) if cores else network
    halved = _halved(copy)
    rounded = inference_copy(copy)
    rounded.load_state_dict({name: halved[name] for name in rounded.state_dict()})
    agreement = {WEIGHTS: Agreement.of(rounded.decode(rounded.encode(images)).image, expected)}
    files: dict[str, bytes] = {}
    if pt2 or onnx:
        encoder, decoder = trace(EncoderProgram(network), DecoderProgram(network), images)
        codes = encoder.module()(images)
        if pt2:
            files |= {"encoder.pt2": _program_bytes(encoder), "decoder.pt2": _program_bytes(decoder)}
            agreement["*.pt2"] = Agreement.of(decoder.module()(codes)["image"], expected)
        if onnx:
            pair = onnx_bytes(encoder, ["images"], list(codes)), onnx_bytes(decoder, list(codes), PARTS)
            files |= dict(zip(("encoder.onnx", "decoder.onnx"), pair, strict=True))
            agreement["*.onnx"] = Agreement.of(run_onnx(*pair, images)["image"], expected)

    path = Path(out)
    card = str(model.generate_model_card(**facts)) if facts else model.card or str(model.generate_model_card())
    copy.card = _card(card, cores, agreement[WEIGHTS])
    kept = cores if morphable is None else morphable
    copy.morphable = model.morphable.to("cpu") if kept and model.morphable is not None else None
    copy.save_pretrained(path, state_dict=halved)
    for name, content in files.items():
        with whole_file(path / name) as file:
            file.write_bytes(content)
    written = [WEIGHTS, *([MORPHABLE] if copy.morphable is not None else []), *files]
    original_size = sum(4 * parameter.numel() for parameter in model.parameters())
    return Exported(path, {name: (path / name).stat().st_size for name in written}, original_size, agreement)


def inference_copy(model: NeuroTensorialAutoencoder, cores: bool = False) -> NeuroTensorialAutoencoder:
    """A copy of a network on the CPU, in float32 and without gradients, with or without its cores.

    Raises:
        InputError: The network has no cores to keep.
    """
    if cores and not model.config.cores:
        raise InputError("the network was exported without its cores; take the checkpoint it was made of")
    config = dataclasses.replace(model.config, cores=cores)
    morphable = model.morphable.to("cpu") if cores and model.morphable is not None else None
    copy = type(model)(config, morphable)
    weights = model.state_dict()
    copy.load_state_dict({name: weights[name] for name in copy.state_dict()})
    copy.card = model.card
    return copy.eval().requires_grad_(False)


def trace(
    encoder: EncoderProgram, decoder: DecoderProgram, images: Float[Tensor, "n 3 h w"]
) -> tuple[ExportedProgram, ExportedProgram]:
    """Both as programs of torch's own operations, for any number of faces.

    Args:
        encoder: Of a network.
        decoder: Of the same one.
        images: Two or more aligned crops in [0, 1], to trace with.
    """
    faces = Dim("n", min=1)
    images = images[:2]
    codes = encoder(images)
    with multilinear.use("autodiff"):  # formulas instead of our operators
        traced = (
            torch.export.export(encoder, (images,), dynamic_shapes=({0: faces},)),
            torch.export.export(decoder, (codes,), dynamic_shapes=({name: {0: faces} for name in codes},)),
        )
    for program in traced:
        program.example_inputs = None  # or the files would hold the faces
    return traced


def onnx_bytes(program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """A program of `trace` as an ONNX file whose tensors are called so."""
    with _without_noise():
        converted = torch.onnx.export(
            program, input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False
        )
    assert converted is not None
    model = converted.model_proto
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim[:1]:
            if size.dim_param:  # torch calls it by a number
                size.dim_param = "n"
    return model.SerializeToString()


def run_onnx(encoder: bytes, decoder: bytes, images: Float[Tensor, "n 3 h w"]) -> Tensors:
    """Encode and decode with onnxruntime."""
    import onnxruntime

    def run(content: bytes, tensors: Mapping[str, Any]) -> dict[str, Any]:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(tensors)), strict=True))

    found = run(decoder, run(encoder, {"images": images.numpy()}))
    return {name: torch.from_numpy(value) for name, value in found.items()}


def _only(model: NeuroTensorialAutoencoder, *names: str) -> NeuroTensorialAutoencoder:
    """A copy with some of its modules alone."""
    copy = inference_copy(model)
    for name, _ in list(copy.named_children()):
        if name not in names:
            delattr(copy, name)
    return copy


def _halved(model: NeuroTensorialAutoencoder) -> Tensors:
    """The weights in float16; buffers, which are factors of matrices to solve with, as they are.

    Raises:
        InputError: A weight is too large for float16 or not finite.
    """
    halved = model.state_dict()
    for name, parameter in model.named_parameters():
        halved[name] = parameter.half()
        if not halved[name].isfinite().all():
            raise InputError(f"{name} has numbers that are not finite, or too large for float16; train again")
    return halved


def _program_bytes(program: ExportedProgram) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def _rendered_faces(size: int) -> Float[Tensor, "n 3 size size"]:
    from facemodels.data.synthetic import synthesise

    faces = [torch.from_numpy(face["image"]).permute(2, 0, 1) for face in synthesise(_FACES, images_per_person=1)]
    pictures = torch.stack(faces).float() / 255
    return torch.nn.functional.interpolate(pictures, (size, size), mode="bilinear", align_corners=False)


def _card(card: str, cores: bool, agreement: Agreement) -> str:
    """The network's card, and what the copy is."""
    text = card.split(EXPORTED)[0].rstrip()
    left_out = (
        "" if cores else ", without the cores of streams 1 and 3: `shape`, `frontal` and `frontal_normals` are None"
    )
    return (
        f"{text}\n\n{EXPORTED}\n\nMade by `facemodels export` for inference: weights in float16{left_out}. Pictures"
        f" like the original's: {agreement}.\n"
    )


def _check_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX files need {', '.join(missing)}; pip install 'multilinear-faces[export]'")


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Keep from the user what torch's exporter says to its own developers."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # that torchvision is not installed
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
            yield
    finally:
        registration.setLevel(level)
