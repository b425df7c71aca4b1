from dataclasses import replace

import numpy as np
import pytest
import torch
from outside import ICT
from safetensors.torch import save_file
from torch.testing import assert_close

from facemodels.errors import InputError
from facemodels.morphable import MorphableModel


def small_model(**changes):
    generator = torch.Generator().manual_seed(0)
    values = {
        "mean": torch.randn(100, 3, generator=generator),
        "identity": torch.randn(4, 100, 3, generator=generator),
        "expression": torch.randn(2, 100, 3, generator=generator),
        "triangles": torch.randint(100, (150, 3), generator=generator),
        "face": torch.rand(150, generator=generator) < 0.5,
        "landmarks": torch.randint(100, (68,), generator=generator),
        "expression_names": ("smile", "frown"),
        "name": "small",
        "licence": "none",
        "source": "test",
    }
    return MorphableModel(**(values | changes))


def ict_arrays(vertices=90, kept=80):
    """A miniature file with the layout of ICT-FaceKit's light model."""
    generator = np.random.default_rng(0)
    return {
        "neutral": generator.standard_normal((vertices, 3)).astype(np.float32),
        "identity": generator.standard_normal((5, vertices, 3)).astype(np.float16),
        "expression": generator.standard_normal((53, vertices, 3)).astype(np.float16),
        "expression_names": np.array([f"shape{k}" for k in range(53)]),
        "triangles": generator.integers(0, vertices, (60, 3)).astype(np.int32),
        "uv": generator.random((vertices, 2)).astype(np.float32),
        "landmarks68": generator.integers(0, kept, 68).astype(np.int32),
        "narrow_face_vertices": np.int64(kept),
    }


def assert_same(first, second):
    for name, value in vars(first).items():
        other = getattr(second, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


class TestVertices:
    def test_matches_definition(self):
        model = small_model()
        identity, expression = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([0.25, -1.5])
        expected = model.mean.clone()
        for coefficient, component in zip(identity, model.identity, strict=True):
            expected += coefficient * component
        for coefficient, component in zip(expression, model.expression, strict=True):
            expected += coefficient * component
        assert_close(model.vertices(identity, expression), expected)

    def test_without_coefficients_is_the_mean(self):
        assert_close(small_model().vertices(), small_model().mean)

    def test_leading_dimensions_broadcast(self):
        model, generator = small_model(), torch.Generator().manual_seed(1)
        identity = torch.randn(5, 1, 4, generator=generator)
        expression = torch.randn(3, 2, generator=generator)
        faces = model.vertices(identity, expression)
        assert faces.shape == (5, 3, 100, 3)
        assert_close(faces[4, 1], model.vertices(identity[4, 0], expression[1]))

    def test_rejects_another_number_of_coefficients(self):
        with pytest.raises(ValueError, match=r"small has 2 expression components, got coefficients of shape \(1, 28\)"):
            small_model().vertices(expression=torch.zeros(1, 28))


class TestFile:
    @pytest.mark.parametrize("albedo", [None, torch.full((100, 3), 0.5)])
    def test_round_trip(self, tmp_path, albedo):
        model = small_model(albedo=albedo)
        model.save(tmp_path / "model.safetensors")
        assert_same(MorphableModel.load(tmp_path / "model.safetensors"), model)
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]

    def test_may_be_read_like_any_new_file(self, tmp_path):
        small_model().save(tmp_path / "model.safetensors")
        (tmp_path / "plain").touch()
        assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_a_failed_write_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "model.safetensors"
        small_model().save(path)
        broken = replace(small_model(), name=7)
        with pytest.raises(TypeError):
            broken.save(path)
        assert_same(MorphableModel.load(path), small_model())
        assert len(list(tmp_path.iterdir())) == 1

    def test_rejects_a_missing_folder(self, tmp_path):
        with pytest.raises(InputError, match=r"cannot write in .*nowhere"):
            small_model().save(tmp_path / "nowhere" / "model.safetensors")

    @pytest.mark.parametrize("content", [b"", b"this is no model", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"], ids=repr)
    def test_rejects_other_files(self, tmp_path, content):
        path = tmp_path / "model.npz"
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no model that we know, or it is damaged"):
            MorphableModel.load(path)

    def test_rejects_a_missing_file(self, tmp_path):
        with pytest.raises(InputError, match=r"there is no file .*none\.safetensors"):
            MorphableModel.load(tmp_path / "none.safetensors")

    def test_rejects_other_tensors(self, tmp_path):
        save_file({"weight": torch.zeros(3)}, tmp_path / "network.safetensors")
        with pytest.raises(InputError, match="is a safetensors file, but holds no morphable model"):
            MorphableModel.load(tmp_path / "network.safetensors")

    def test_rejects_a_truncated_file(self, tmp_path):
        path = tmp_path / "model.safetensors"
        small_model().save(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(InputError, match="damaged"):
            MorphableModel.load(path)

    def test_rejects_a_file_that_lacks_something(self, tmp_path):
        metadata = {"format": "facemodels.MorphableModel/1", "expression_names": "[]"}
        save_file({"mean": torch.zeros(3, 3)}, tmp_path / "model.safetensors", metadata=metadata)
        with pytest.raises(InputError, match="is no complete morphable model"):
            MorphableModel.load(tmp_path / "model.safetensors")


class TestChecks:
    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("mean", torch.zeros(100, 2), r"mean must have shape \(100, 3\), got \(100, 2\)"),
            ("identity", torch.zeros(4, 99, 3), r"identity must have shape \(4, 100, 3\), got \(4, 99, 3\)"),
            ("face", torch.ones(7, dtype=torch.bool), r"face must have shape \(150,\), got \(7,\)"),
            ("landmarks", torch.zeros(51, dtype=torch.long), r"landmarks must have shape \(68,\), got \(51,\)"),
            ("landmarks", torch.full((68,), 100), "landmarks must number vertices from 0 to 99, got 100 to 100"),
            ("expression_names", ("smile",), "2 expression components need as many names, got 1"),
        ],
    )
    def test_rejects_what_does_not_fit(self, field, value, message):
        with pytest.raises(ValueError, match=message):
            small_model(**{field: value})


class TestIctFaceKit:
    def test_miniature_file(self, tmp_path):
        arrays = ict_arrays()
        np.savez(tmp_path / "model.npz", **arrays)
        model = MorphableModel.load(tmp_path / "model.npz")
        assert (model.n_vertices, model.n_identity, model.n_expression) == (80, 5, 28)
        assert_close(model.mean, torch.from_numpy(10 * arrays["neutral"][:80]))  # cm become mm
        assert_close(model.identity, torch.from_numpy(10 * arrays["identity"][:, :80].astype(np.float32)))
        assert bool(model.face.all())
        assert len(model.triangles) == int((arrays["triangles"] < 80).all(axis=1).sum())

    def test_expression_components_keep_most_of_what_blendshapes_do(self, tmp_path):
        arrays = ict_arrays(kept=90)
        np.savez(tmp_path / "model.npz", **arrays)
        components = MorphableModel.load(tmp_path / "model.npz").expression.flatten(1)
        shapes = 2.5 * torch.from_numpy(arrays["expression"].astype(np.float32)).flatten(1)  # 10 mm a cm, times 0.25
        assert_close(components @ components.T, (components @ components.T).diagonal().diag(), atol=1e-2, rtol=0)
        leading = torch.linalg.eigvalsh(shapes @ shapes.T).flip(0)[:28]
        assert_close(components.square().sum(dim=1), leading, rtol=1e-3, atol=0)

    def test_rejects_other_arrays(self, tmp_path):
        np.savez(tmp_path / "other.npz", weights=np.zeros(3))
        with pytest.raises(InputError, match=r"is no model that we know: it holds \['weights'\]"):
            MorphableModel.load(tmp_path / "other.npz")

    def test_rejects_pickled_arrays(self, tmp_path):
        np.savez(tmp_path / "other.npz", neutral=np.array([{}], dtype=object))
        with pytest.raises(InputError, match="is a damaged npz file"):
            MorphableModel.load(tmp_path / "other.npz")

    @pytest.mark.skipif(not ICT.is_file(), reason=f"needs {ICT}")
    def test_real_file(self):
        model = MorphableModel.load(ICT)
        assert (model.n_vertices, model.n_identity, model.n_expression) == (6706, 100, 28)
        right_eye, left_eye = (model.mean[model.landmarks[a:b]].mean(dim=0) for a, b in ((36, 42), (42, 48)))
        assert 58 < left_eye[0] - right_eye[0] < 68  # mm; the subject's left is to the viewer's right
        assert model.mean[model.landmarks[30], 2] > model.mean[model.landmarks[27], 2]  # the nose points to the viewer
        assert model.mean[model.landmarks[8], 1] < model.mean[model.landmarks[27], 1] - 80
