"""Copies for inference show the same pictures as the network they were made of."""

import dataclasses
import errno
import importlib.util
import os

import onnx
import pytest
import torch
from safetensors.torch import load_file
from tiny import EXPRESSION, IDENTITY, VERTICES
from torch import nn
from torch.testing import assert_close

from facemodels import export as export_module
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig, preset
from facemodels.errors import InputError
from facemodels.evaluation.report import Report
from facemodels.export import PARTS, DecoderProgram, EncoderProgram, export, run_onnx, trace
from facemodels.networks.decoders import unpool
from facemodels.reconstruction import shapes

SMALL = {
    "channels": (6, 5, 4),
    "intermediate": 16,
    "background": 7,
    "mask": 6,
    "identity": 9,
    "expression": 6,
    "morphable_identity": IDENTITY,
    "morphable_expression": EXPRESSION,
    "vertices": VERTICES,
}
PAPER = NetworkConfig(**SMALL)
OURS = NetworkConfig(
    **SMALL,
    bottleneck="tanh",
    shape_space="coordinates",
    frontal_rank=4,
    face_mask=True,
    cut_background=True,
    residual_identity=True,
)
OTHER = dataclasses.replace(
    OURS, skips="none", rotation="rotation", size=32, residual_identity=False, light_channels=3, residual=(5, 3)
)


def make(config, morphable=None, seed=0):
    torch.manual_seed(seed)
    model = NeuroTensorialAutoencoder(config, morphable).eval().requires_grad_(False)
    for stages in (model.encoder.residual or ())[-1:]:
        stages.weight.normal_(std=0.1)  # they say nothing at first
    return model


def crops(count, size=64, seed=3):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, size // 8, size // 8, generator=generator)
    return nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)


def decoded(model, images):
    rendering = model.decode(model.encode(images))
    return {name: getattr(rendering, name) for name in PARTS}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(OURS, id="ours"),
        pytest.param(PAPER, id="paper", marks=pytest.mark.slow),
        pytest.param(OTHER, id="other", marks=pytest.mark.slow),
    ],
)
def network(request):
    return make(request.param)


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    return export(network, tmp_path_factory.mktemp("export"), pt2=True, onnx=True, images=crops(3, network.config.size))


@pytest.fixture(scope="module")
def programs(exported):
    return [torch.export.load(exported.path / f"{name}.pt2") for name in ("encoder", "decoder")]


@pytest.fixture(scope="module")
def pair(exported):
    return [(exported.path / f"{name}.onnx").read_bytes() for name in ("encoder", "decoder")]


class TestCheckpoint:
    def test_holds_halves_and_loads_as_float32(self, network, exported):
        stored = load_file(exported.path / "model.safetensors")
        assert {value.dtype for value in stored.values()} == {torch.float16}
        assert not [name for name in stored if "core" in name]
        again = NeuroTensorialAutoencoder.from_pretrained(exported.path)
        assert {value.dtype for value in again.state_dict().values()} == {torch.float32}
        numbers = sum(value.numel() for value in again.parameters())
        assert numbers < sum(value.numel() for value in network.parameters())
        assert 2 * numbers <= exported.sizes["model.safetensors"] <= 2 * numbers + 8192
        assert exported.original_size == 4 * sum(value.numel() for value in network.parameters())

    def test_shows_the_same_pictures(self, network, exported):
        images = crops(3, network.config.size)
        again = NeuroTensorialAutoencoder.from_pretrained(exported.path)
        found, expected = decoded(again, images), decoded(network, images)
        worst = (found["image"] - expected["image"]).abs().max()
        assert_close(torch.tensor(exported.agreement["model.safetensors"].largest), worst)
        mean = -10 * (found["image"] - expected["image"]).square().flatten(1).mean(1).log10().mean()
        assert_close(torch.tensor(exported.agreement["model.safetensors"].decibels), mean)
        assert worst < 0.02  # of weights with 11 binary digits; a maximum may move to a neighbour
        for name in PARTS:
            assert (found[name] - expected[name]).abs().mean() < 2e-3, name

    def test_decodes_no_shape_and_no_frontal_pictures(self, network, exported):
        again = NeuroTensorialAutoencoder.from_pretrained(exported.path)
        codes = again.encode(crops(1, network.config.size))
        rendering = again.decode(codes)
        assert rendering.shape is None and rendering.frontal is None and rendering.frontal_normals is None
        for call in (
            lambda: again.shape(codes.expression, codes.identity),
            lambda: again.frontal(codes.light, codes.expression, codes.identity),
            lambda: again.shape_target(torch.zeros(1, IDENTITY), torch.zeros(1, EXPRESSION)),
        ):
            with pytest.raises(ValueError, match="this network was exported for inference, without the cores"):
                call()

    def test_with_cores_it_keeps_everything(self, morphable, tmp_path):
        model = make(OURS, morphable)
        made = export(model, tmp_path, cores=True, images=crops(2))
        assert set(made.sizes) == {"model.safetensors", "morphable.safetensors"}
        again = NeuroTensorialAutoencoder.from_pretrained(tmp_path)
        first, second = (m.decode(m.encode(crops(2))) for m in (model, again))
        assert first.shape is not None and second.shape is not None
        assert (first.shape - second.shape).norm(dim=-1).max() < 0.5  # mm
        assert_close(second.frontal, first.frontal, rtol=0, atol=5e-3)

    def test_without_its_morphable_model_and_with_facts(self, morphable, tmp_path):
        model = make(OURS, morphable)
        facts = Report(3, {"psnr": 23.25, "person_auc_of_expression": 0.5}).facts()
        made = export(model, tmp_path, cores=True, morphable=False, facts=facts, images=crops(2))
        assert set(made.sizes) == {"model.safetensors"}
        assert "| PSNR of the picture (dB) | 23.25 |" in (tmp_path / "README.md").read_text()
        assert "by the expression code" in (tmp_path / "README.md").read_text()
        alone = NeuroTensorialAutoencoder.from_pretrained(tmp_path)
        given = NeuroTensorialAutoencoder.from_pretrained(tmp_path, morphable=morphable)
        assert alone.decode(alone.encode(crops(2))).shape is None
        first, second = (m.decode(m.encode(crops(2))).shape for m in (model, given))
        assert (first - second).norm(dim=-1).max() < 0.5  # mm

    def test_with_its_morphable_model_and_without_cores(self, morphable, tmp_path):
        """The coefficients make vertices of it."""
        model = make(OURS, morphable)
        made = export(model, tmp_path, morphable=True, images=crops(2))
        assert set(made.sizes) == {"model.safetensors", "morphable.safetensors"}
        again = NeuroTensorialAutoencoder.from_pretrained(tmp_path)
        assert not again.config.cores
        first, second = (shapes(m, m.encode(crops(2)), "coefficients") for m in (model, again))
        assert (first - second).norm(dim=-1).max() < 0.5  # mm
        with pytest.raises(InputError, match="carries no morphable model to keep; take the checkpoint"):
            export(make(OURS), tmp_path / "bare", morphable=True, images=crops(2))

    def test_a_copy_of_a_copy_is_the_same_copy(self, exported, tmp_path):
        again = NeuroTensorialAutoencoder.from_pretrained(exported.path)
        export(again, tmp_path, images=crops(2, again.config.size))
        first, second = (load_file(path / "model.safetensors") for path in (exported.path, tmp_path))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert (tmp_path / "README.md").read_text().count("## Exported copy") == 1

    def test_on_rendered_faces_by_default(self, tmp_path):
        made = export(make(PAPER), tmp_path)
        assert 0 < made.agreement["model.safetensors"].largest < 0.02
        assert "like the network's own" in made.lines()[-1] and "in float32" in made.lines()[0]


class TestPrograms:
    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_equal_the_network(self, network, programs, count):
        encoder, decoder = (program.module() for program in programs)
        images = crops(count, network.config.size, seed=count)
        codes, expected = encoder(images), network.encode(images)
        for name, value in expected.to_tensors().items():
            if network.config.skips == "add" or ".skips." not in name:
                assert_close(codes[f"codes.{name}"], value)
        pictures = decoder(codes)
        for name, value in decoded(network, images).items():
            assert_close(pictures[name], value)

    def test_equal_the_network_in_float64(self, network):
        model = make(network.config).double()
        images = crops(2, network.config.size).double()
        encoder, decoder = trace(EncoderProgram(model).double(), DecoderProgram(model).double(), images)
        images = crops(3, network.config.size, seed=8).double()
        pictures = decoder.module()(encoder.module()(images))
        for name, value in decoded(model, images).items():
            assert_close(pictures[name], value, rtol=0, atol=1e-12)

    def test_consist_of_torchs_own_operations(self, programs):
        for program in programs:
            targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
            assert not [target for target in targets if not target.startswith(("aten.", "<built-in function getitem"))]

    def test_hold_no_weights_of_each_other(self, programs):
        encoder, decoder = (set(program.state_dict) for program in programs)
        assert not {name for name in encoder | decoder if "core" in name or "coefficients" in name}
        assert not {name for name in encoder if "albedo" in name} and not {name for name in decoder if "heads" in name}

    def test_hold_no_faces(self, programs, exported):
        for name, program in zip(("encoder", "decoder"), programs, strict=True):
            assert program.example_inputs is None
            weights = sum(4 * value.numel() for value in program.state_dict.values())
            assert exported.sizes[f"{name}.pt2"] < weights + 300_000  # the graph, as text

    def test_report(self, exported):
        assert exported.agreement["*.pt2"].largest < 1e-6
        assert exported.sizes["encoder.pt2"] == (exported.path / "encoder.pt2").stat().st_size


class TestOnnx:
    @pytest.mark.parametrize("count", [1, 4])
    def test_equal_the_network(self, network, pair, count):
        images = crops(count, network.config.size, seed=count)
        pictures = run_onnx(*pair, images)
        assert list(pictures) == list(PARTS)
        for name, value in decoded(network, images).items():
            # where two activations of a window are all but equal, another rounding pools the other one
            equal = ((torch.as_tensor(pictures[name]) - value).abs() <= 1e-4).float().mean()
            assert equal > 0.99, name

    def test_names_and_sizes(self, network, pair):
        encoder, decoder = (onnx.load_from_string(content).graph for content in pair)
        size = network.config.size
        assert [value.name for value in encoder.input] == ["images"]
        assert _shape(encoder.input[0]) == ["n", 3, size, size]
        assert [value.name for value in decoder.output] == list(PARTS)
        assert _shape(decoder.output[0]) == ["n", 3, size, size]
        codes = [value.name for value in encoder.output]
        assert codes == [value.name for value in decoder.input]
        assert {"codes.identity", "codes.expression", "codes.pose", "codes.context.indices.0"} < set(codes)
        assert ("codes.context.skips.0" in codes) == (network.config.skips == "add")
        assert ("codes.background_context.indices.0" in codes) == network.config.cut_background

    def test_valid(self, pair):
        for content in pair:
            onnx.checker.check_model(onnx.load_from_string(content), full_check=True)

    def test_report(self, exported):
        assert exported.agreement["*.onnx"].decibels > 70
        names = {"model.safetensors", "encoder.pt2", "decoder.pt2", "encoder.onnx", "decoder.onnx"}
        assert set(exported.sizes) == names
        assert set(os.listdir(exported.path)) == names | {"config.json", "README.md"}


def _shape(value):
    return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]


class TestUnpooling:
    def test_a_scatter_is_the_same(self, monkeypatch):
        pooled, index = nn.functional.max_pool2d(torch.randn(2, 3, 8, 12), 2, return_indices=True)
        weight = torch.randn(2, 3, 8, 12)
        results = []
        for exporting in (False, True):
            monkeypatch.setattr(torch.compiler, "is_exporting", lambda exporting=exporting: exporting)
            values = pooled.clone().requires_grad_()
            unpooled = unpool(values, index)
            results.append((unpooled, *torch.autograd.grad((unpooled * weight).sum(), values)))
        for first, second in zip(*results, strict=True):
            assert_close(second, first, rtol=0, atol=0)


class TestWrongInput:
    def test_weights_that_are_no_halves(self, tmp_path):
        for value in (float("nan"), 1e5):
            model = make(PAPER)
            model.encoder.head.weight[0, 0] = value
            with pytest.raises(
                InputError, match=r"encoder\.head\.weight has numbers that are not finite, or too large"
            ):
                export(model, tmp_path / "out", images=crops(2))
        assert not (tmp_path / "out").exists()

    def test_cores_of_a_copy_without(self, tmp_path):
        copy = make(dataclasses.replace(PAPER, cores=False))
        with pytest.raises(InputError, match="was exported without its cores"):
            export(copy, tmp_path / "out", cores=True, images=crops(2))

    def test_images(self, tmp_path):
        with pytest.raises(ValueError, match=r"export: images must have shape \(n, 3, 64, 64\)"):
            export(make(PAPER), tmp_path, images=crops(2, 32))
        with pytest.raises(ValueError, match="needs at least two images"):
            export(make(PAPER), tmp_path, images=crops(1))
        assert not os.listdir(tmp_path)

    def test_packages_that_are_missing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
        with pytest.raises(InputError, match=r"ONNX files need onnxscript; pip install 'multilinear-faces\[export\]'"):
            export(make(PAPER), tmp_path, onnx=True)

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def full(handle):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="is full"):
            export(make(PAPER), tmp_path, images=crops(2))
        assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_a_preset_of_full_size(tmp_path):
    network, _ = preset("large")
    model = make(network)
    made = export(model, tmp_path, pt2=True, onnx=True, images=crops(2, network.size))
    assert made.sizes["model.safetensors"] < 0.4 * made.original_size
    assert made.agreement["*.pt2"].largest < 1e-5 and made.agreement["*.onnx"].decibels > 80


def test_the_papers_sizes_without_cores():
    network, _ = preset("paper")
    with torch.device("meta"):
        count = sum(
            p.numel() for p in NeuroTensorialAutoencoder(dataclasses.replace(network, cores=False)).parameters()
        )
        whole = sum(p.numel() for p in NeuroTensorialAutoencoder(network).parameters())
    assert whole - count == 28125 * 1200 + 12288 * 10800
    assert export_module.inference_copy(make(PAPER)).config == dataclasses.replace(PAPER, cores=False)
