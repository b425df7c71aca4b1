"""Converters on miniature files written in the layouts of the real ones: the front of the built-in head, few modes."""

import collections
import json
import os
import pickle
import struct
import subprocess
import sys
import types

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from torch.testing import assert_close
from typer.testing import CliRunner

from facemodels.cli import app
from facemodels.errors import InputError
from facemodels.morphable import MorphableModel
from facemodels.morphable.converters import from_file
from facemodels.morphable.converters.assemble import all_landmarks, assemble
from facemodels.morphable.converters.basel import _LANDMARKS_2009, _NAMED
from facemodels.morphable.converters.surrey import _LANDMARKS as SURREY_LANDMARKS


class Miniature:
    """The face of the built-in head with its own numbering, and a few components."""

    def __init__(self, identity=4, expression=3):
        model = MorphableModel.procedural()
        used = torch.cat([model.triangles[model.face].flatten(), model.landmarks]).unique()
        number = torch.full((model.n_vertices,), -1)
        number[used] = torch.arange(len(used))
        self.mean = model.mean[used].double().numpy()
        self.identity = model.identity[:identity, used].double().numpy()
        self.expression = model.expression[:expression, used].double().numpy()
        self.triangles = number[model.triangles[model.face]].numpy()
        self.landmarks = number[model.landmarks].tolist()
        self.albedo = model.albedo[used].double().numpy()

    def __len__(self):
        return len(self.mean)

    def spread(self, known, vertices):
        """The same face in a mesh of so many vertices, whose known landmarks have the numbers of a published list."""
        order = np.full(vertices, -1)
        for number, vertex in known.items():
            order[vertex] = self.landmarks[number]
        left = iter([k for k in range(len(self)) if k not in set(self.landmarks[n] for n in known)])
        for vertex in np.flatnonzero(order < 0):
            order[vertex] = next(left, 0)
        inverse = np.zeros(len(self), dtype=int)
        inverse[order[::-1]] = np.arange(vertices)[::-1]
        self.mean, self.albedo = self.mean[order], self.albedo[order]
        self.identity, self.expression = self.identity[:, order], self.expression[:, order]
        self.triangles = inverse[self.triangles]
        return self


@pytest.fixture
def mini():
    return Miniature()


def columns(components):
    """Unit vectors (3 V, K) and their lengths."""
    flat = components.reshape(len(components), -1).T
    length = np.linalg.norm(flat, axis=0)
    return flat / length, length


def close(tensor, array, atol=1e-3):
    assert_close(tensor.double(), torch.from_numpy(np.asarray(array, dtype=np.float64)), atol=atol, rtol=1e-4)


def normals_look_outwards(model):
    a, b, c = model.mean[model.triangles].unbind(dim=1)
    area = torch.linalg.cross(b - a, c - a)[:, 2]
    return area.sum() > 0.5 * area.abs().sum()


class TestBasel2009:
    def write(self, path, mini, **changes):
        (identity, length), colour = columns(mini.identity), 255 * mini.albedo
        content = {
            "shapeMU": (1e3 * mini.mean).reshape(-1, 1).astype(np.float32),  # micrometres
            "shapePC": identity.astype(np.float32),
            "shapeEV": (1e3 * length).reshape(-1, 1).astype(np.float32),
            "texMU": colour.reshape(-1, 1).astype(np.float32),
            "texPC": identity.astype(np.float32),
            "texEV": length.reshape(-1, 1).astype(np.float32),
            "tl": (mini.triangles[:, ::-1] + 1).astype(np.float64),  # from 1, clockwise
            "segbin": np.zeros((len(mini), 4), dtype=np.uint8),
        }
        scipy.io.savemat(path, content | changes)

    def test_round_trip(self, tmp_path, mini):
        self.write(tmp_path / "01_MorphableModel.mat", mini)
        model = from_file(tmp_path / "01_MorphableModel.mat", landmarks=mini.landmarks)
        close(model.mean, mini.mean)
        close(model.identity, mini.identity)
        assert model.expression.shape == (0, len(mini), 3)
        assert model.landmarks.tolist() == mini.landmarks
        assert normals_look_outwards(model)
        close(model.albedo, mini.albedo)
        assert "no redistribution" in model.licence

    def test_knows_the_landmarks_of_the_real_mesh(self, tmp_path, mini):
        self.write(tmp_path / "model.mat", mini.spread(_LANDMARKS_2009, 53490))
        model = MorphableModel.load(tmp_path / "model.mat")
        assert model.n_vertices == 53490
        for number, vertex in _LANDMARKS_2009.items():
            assert model.landmarks[number] == vertex
        ours = MorphableModel.procedural()
        away = (model.mean[model.landmarks] - ours.mean[ours.landmarks]).norm(dim=1)
        assert away.max() < 3  # mm; those that no list names were carried over

    def test_asks_for_landmarks(self, tmp_path, mini):
        self.write(tmp_path / "model.mat", mini)
        with pytest.raises(InputError, match="no landmarks are known for the mesh of Basel Face Model 2009 with"):
            MorphableModel.load(tmp_path / "model.mat")

    def test_rejects_another_matlab_file(self, tmp_path):
        scipy.io.savemat(tmp_path / "other.mat", {"x": np.zeros(3)})
        with pytest.raises(InputError, match=r"lacks shapeMU; is it 01_MorphableModel\.mat"):
            MorphableModel.load(tmp_path / "other.mat")

    def test_rejects_wrong_shapes(self, tmp_path, mini):
        self.write(tmp_path / "model.mat", mini, shapePC=np.zeros((9, 4)))
        with pytest.raises(
            InputError, match=r"identity basis of Basel Face Model 2009 has shape \(4, 3, 3\), expected"
        ):
            from_file(tmp_path / "model.mat", landmarks=mini.landmarks)

    def test_rejects_a_truncated_file(self, tmp_path, mini):
        self.write(tmp_path / "model.mat", mini)
        content = (tmp_path / "model.mat").read_bytes()
        (tmp_path / "model.mat").write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match="damaged"):
            MorphableModel.load(tmp_path / "model.mat")


class TestBasel2017:
    def write(self, path, mini, *, as_list=True, leave_out=()):
        shift = np.full_like(mini.mean, 0.25)
        names = {name: mini.mean[mini.landmarks[number]].tolist() for name, number in _NAMED.items()}
        text = json.dumps([{"id": key, "coordinates": value} for key, value in names.items()] if as_list else names)
        with h5py.File(path, "w") as file:
            for part, mean, components in (
                ("shape", mini.mean - shift, mini.identity),
                ("expression", shift, mini.expression),
                ("color", mini.albedo, mini.identity),
            ):
                vectors, length = columns(components)
                file[f"{part}/model/mean"] = mean.ravel().astype(np.float32)
                file[f"{part}/model/pcaBasis"] = vectors.astype(np.float32)
                file[f"{part}/model/pcaVariance"] = np.square(length).astype(np.float32)
                file[f"{part}/model/noiseVariance"] = np.float32(0)
                file[f"{part}/representer/points"] = mini.mean.T.astype(np.float32)
                file[f"{part}/representer/cells"] = mini.triangles.T.astype(np.int32)  # (3, F), as in the real files
            file["metadata/landmarks/json"] = text if as_list else np.frombuffer(text.encode(), np.int8)
            for entry in leave_out:
                del file[entry]

    @pytest.mark.parametrize("as_list", [True, False])
    def test_round_trip(self, tmp_path, mini, as_list):
        self.write(tmp_path / "model2017-1_face12_nomouth.h5", mini, as_list=as_list)
        model = MorphableModel.load(tmp_path / "model2017-1_face12_nomouth.h5")
        close(model.mean, mini.mean)  # the means of shape and expression belong together
        close(model.identity, mini.identity)
        close(model.expression, mini.expression)
        close(model.albedo, mini.albedo)
        assert torch.equal(model.triangles, torch.from_numpy(mini.triangles))
        for number in _NAMED.values():
            assert (model.mean[model.landmarks[number]] - model.mean[mini.landmarks[number]]).norm() < 0.6  # mm
        away = (model.mean[model.landmarks] - model.mean[mini.landmarks]).norm(dim=1)
        assert away.max() < 3  # mm

    @pytest.mark.parametrize("entry", ["shape/model/pcaVariance", "expression", "shape/representer/cells"])
    def test_rejects_a_file_that_lacks_something(self, tmp_path, mini, entry):
        self.write(tmp_path / "model.h5", mini, leave_out=[entry])
        with pytest.raises(InputError, match=f"lacks {entry}"):
            MorphableModel.load(tmp_path / "model.h5")

    def test_asks_for_landmarks(self, tmp_path, mini):
        self.write(tmp_path / "model.h5", mini, leave_out=["metadata/landmarks/json"])
        with pytest.raises(InputError, match="pass `landmarks`, the vertices of the 68 iBUG landmarks"):
            MorphableModel.load(tmp_path / "model.h5")

    def test_says_what_to_install(self, tmp_path, mini, monkeypatch):
        self.write(tmp_path / "model.h5", mini)
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(InputError, match=r"pip install multilinear-faces\[models\]"):
            MorphableModel.load(tmp_path / "model.h5")


def python2_pickle(content, monkeypatch):
    """A pickle as FLAME's: protocol 2, chumpy arrays, scipy's old module names."""
    monkeypatch.setattr(scipy.sparse.csc_matrix, "__module__", "scipy.sparse.csc")
    old = types.ModuleType("scipy.sparse.csc")
    old.csc_matrix = scipy.sparse.csc_matrix
    monkeypatch.setitem(sys.modules, "scipy.sparse.csc", old)
    return pickle.dumps(content, protocol=2)


class Ch:
    """As chumpy pickles itself: by the names of its fields."""

    def __init__(self, x):
        self.x, self._dirty_vars, self._itr = x, set(), None

    def __getstate__(self):
        return {"x": self.x, "_itr": None}


@pytest.fixture
def chumpy(monkeypatch):
    package, module = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    monkeypatch.setattr(Ch, "__module__", "chumpy.ch")
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", package)
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    return Ch


class TestFlame:
    def entries(self, mini, wrap=lambda array: array):
        count = len(mini)
        shapes = np.concatenate([mini.identity[:3], mini.expression[:1]]).transpose(1, 2, 0) / 1000  # metres
        jaw = np.clip((-60 - mini.mean[:, 1]) / 30, 0, 1)
        weights = np.zeros((count, 5))
        weights[:, 2], weights[:, 1] = jaw, 1 - jaw
        posedirs = np.zeros((count, 3, 36))
        posedirs[:, 2, 9:18] = 0.01 * jaw[:, None] * np.arange(9)  # what the turning jaw corrects
        joints = np.zeros((5, count))
        joints[:, 0] = 1.0
        joints[2] = 0.0
        joints[2, mini.landmarks[0]] = joints[2, mini.landmarks[16]] = 0.5  # the jaw turns about the ears
        return {
            "f": mini.triangles.astype(np.uint32),
            "v_template": wrap(mini.mean / 1000),
            "shapedirs": wrap(shapes),
            "posedirs": posedirs,
            "weights": wrap(weights),
            "J_regressor": scipy.sparse.csc_matrix(joints),
            "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
        }

    def check(self, model, mini):
        close(model.mean, mini.mean)
        close(model.identity, mini.identity[:3])
        assert model.expression_names == ("jaw_open", "jaw_sideways", "component_00")
        close(model.expression[2], mini.expression[0])
        chin, forehead = model.landmarks[8], model.landmarks[27]
        assert model.expression[0, chin, 1] < -5  # mm: it opens
        assert model.expression[0, forehead].abs().max() < 1e-3
        assert model.expression[1, chin, 0].abs() > 2

    def test_pickle_of_chumpy_arrays(self, tmp_path, mini, chumpy, monkeypatch):
        content = python2_pickle(self.entries(mini, chumpy), monkeypatch)
        for name in ("chumpy", "chumpy.ch", "scipy.sparse.csc"):
            monkeypatch.delitem(sys.modules, name)
        assert b"chumpy.ch" in content
        (tmp_path / "generic_model.pkl").write_bytes(content)
        self.check(from_file(tmp_path / "generic_model.pkl", landmarks=mini.landmarks), mini)
        assert "chumpy" not in sys.modules

    def test_npz(self, tmp_path, mini):
        entries = self.entries(mini)
        entries["J_regressor"] = entries["J_regressor"].toarray()
        np.savez(tmp_path / "flame2023.npz", **{k: v for k, v in entries.items() if not isinstance(v, str)})
        self.check(from_file(tmp_path / "flame2023.npz", landmarks=mini.landmarks), mini)

    def test_jaw_is_the_derivative_of_skinning_in_the_small(self, mini):
        from facemodels.morphable.converters import flame

        entries = self.entries(mini)
        entries["J_regressor"] = entries["J_regressor"].toarray()
        turn = np.array([1e-5, 2e-5, -3e-5])
        motion = flame._jaw_motion(entries, mini.mean / 1000, turn)
        joint = (entries["J_regressor"] @ mini.mean / 1000)[2]
        expected = entries["weights"][:, 2, None] * np.cross(turn, mini.mean / 1000 - joint)
        cross = np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
        expected += entries["posedirs"][..., 9:18] @ cross.ravel()
        np.testing.assert_allclose(motion, expected, atol=1e-9)

    @pytest.mark.parametrize(
        "evil",
        [os.system, print, eval, subprocess.run, np.load, getattr],
        ids=lambda one: one.__name__,
    )
    def test_executes_nothing(self, tmp_path, evil):
        class Evil:
            def __reduce__(self):
                return evil, ("true",)

        (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps({"v_template": Evil()}, protocol=2))
        with pytest.raises(InputError, match=r"no pickle that is safe to read: it asks for .*\.\w+"):
            MorphableModel.load(tmp_path / "generic_model.pkl")

    def test_refuses_another_chumpy_object(self, tmp_path, mini):
        entries = self.entries(mini) | {"v_template": collections.OrderedDict()}
        entries["J_regressor"] = entries["J_regressor"].toarray()
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(entries, protocol=2))
        with pytest.raises(InputError, match=r"holds a OrderedDict where an array should be; convert the file to npz"):
            MorphableModel.load(tmp_path / "model.pkl")

    def test_rejects_a_truncated_pickle(self, tmp_path, mini):
        entries = {"v_template": mini.mean}
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(entries, protocol=2)[:500])
        with pytest.raises(InputError, match=r"damaged pickle|safe to read"):
            MorphableModel.load(tmp_path / "model.pkl")

    def test_rejects_another_pickle(self, tmp_path):
        (tmp_path / "model.pkl").write_bytes(pickle.dumps([1, 2], protocol=2))
        with pytest.raises(InputError, match="is a pickle of list, not of FLAME's entries"):
            MorphableModel.load(tmp_path / "model.pkl")


class Cereal:
    """Writes cereal's binary archives."""

    def __init__(self):
        self.parts = []

    def put(self, kind, *values):
        self.parts.append(struct.pack(kind, *values))

    def matrix(self, array):
        self.put("<ii", *array.shape)
        self.parts.append(array.T.astype("<f4").tobytes())  # Eigen keeps columns together

    def list_of(self, array, kind):
        self.put("<Q", len(array))
        self.parts.append(np.ascontiguousarray(array, kind).tobytes())

    def components(self, mean, components, triangles, *, scaled_too=False):
        vectors, length = columns(components)
        self.matrix(mean.reshape(-1, 1))
        if scaled_too:
            self.matrix(vectors * length)
        self.matrix(vectors)
        self.matrix(np.square(length)[:, None])
        self.list_of(triangles, "<i4")

    def text(self, text):
        self.put("<Q", len(text))
        self.parts.append(text.encode())

    def blendshapes(self, shapes):
        self.put("<Q", len(shapes))
        for name, shape in shapes.items():
            self.text(name)
            self.matrix(shape.reshape(-1, 1))

    def empty(self):
        for _ in range(3):
            self.matrix(np.zeros((0, 0)))
        self.put("<Q", 0)

    def write(self, path):
        path.write_bytes(b"".join(self.parts))


class TestSurrey:
    def write(self, path, mini, version=4, expression="none"):
        file = Cereal()
        file.put("<I", version)
        file.components(mini.mean, mini.identity, mini.triangles, scaled_too=version == 1)
        file.empty() if version > 1 else file.components(mini.albedo, mini.identity, mini.triangles, scaled_too=True)
        if version >= 2:
            file.put("<?", expression == "none")
            if expression == "components":
                file.put("<i", 0)
                file.components(0 * mini.mean, mini.expression, mini.triangles)
            elif expression == "blendshapes":
                file.put("<i", 1)
                file.blendshapes({"anger": mini.expression[0], "joy": mini.expression[1]})
        if version >= 3:
            file.put("<?", False)
            file.put("<Q", 1)
            file.text("center.nose.tip")
            file.put("<i", 114)
        file.list_of(np.tile([0.25, 0.75], (len(mini), 1)), "<f8")
        if version >= 4:
            file.list_of(mini.triangles, "<i4")
        file.write(path)

    @pytest.mark.parametrize("version", [1, 2, 3, 4])
    def test_all_versions(self, tmp_path, mini, version):
        self.write(tmp_path / "sfm.bin", mini, version)
        model = from_file(tmp_path / "sfm.bin", landmarks=mini.landmarks)
        close(model.mean, mini.mean)
        close(model.identity, mini.identity)
        assert torch.equal(model.triangles, torch.from_numpy(mini.triangles))
        assert model.uv.unique().tolist() == [0.25, 0.75]
        assert (model.albedo is not None) == (version == 1)
        assert "non-commercial" in model.licence

    def test_expression_components(self, tmp_path, mini):
        self.write(tmp_path / "sfm.bin", mini, expression="components")
        close(from_file(tmp_path / "sfm.bin", landmarks=mini.landmarks).expression, mini.expression)

    def test_blendshapes_inside_and_beside(self, tmp_path, mini):
        self.write(tmp_path / "whole.bin", mini, expression="blendshapes")
        self.write(tmp_path / "sfm.bin", mini)
        second = Cereal()
        second.blendshapes({"anger": mini.expression[0], "joy": mini.expression[1]})
        second.write(tmp_path / "shapes.bin")
        whole = from_file(tmp_path / "whole.bin", landmarks=mini.landmarks)
        both = from_file(tmp_path / "sfm.bin", landmarks=mini.landmarks, blendshapes=tmp_path / "shapes.bin")
        assert whole.expression_names == both.expression_names == ("anger", "joy")
        close(whole.expression, 0.35 * mini.expression[:2])
        close(both.expression, 0.35 * mini.expression[:2])

    def test_knows_the_landmarks_of_the_real_mesh(self, tmp_path, mini):
        self.write(tmp_path / "sfm_shape_3448.bin", mini.spread(SURREY_LANDMARKS, 3448))
        model = MorphableModel.load(tmp_path / "sfm_shape_3448.bin")
        for number, vertex in SURREY_LANDMARKS.items():
            assert model.landmarks[number] == vertex

    def test_rejects_blendshapes_of_another_mesh(self, tmp_path, mini):
        self.write(tmp_path / "sfm.bin", mini)
        second = Cereal()
        second.blendshapes({"anger": np.zeros((7, 3))})
        second.write(tmp_path / "shapes.bin")
        with pytest.raises(InputError, match=r"blendshape 'anger' of .* moves 7 vertices, but the model has"):
            from_file(tmp_path / "sfm.bin", landmarks=mini.landmarks, blendshapes=tmp_path / "shapes.bin")

    @pytest.mark.parametrize("change", [lambda content: content[:-9], lambda content: content + b"more"])
    def test_rejects_a_damaged_file(self, tmp_path, mini, change):
        self.write(tmp_path / "sfm.bin", mini)
        (tmp_path / "sfm.bin").write_bytes(change((tmp_path / "sfm.bin").read_bytes()))
        with pytest.raises(InputError, match=r"truncated|goes on after the model's end"):
            MorphableModel.load(tmp_path / "sfm.bin")


class TestIctFolder:
    def write(self, folder, mini, landmarks=None):
        folder.mkdir()
        # Quads as in the real files: pairs of triangles that share an edge are written as fans of four.
        faces = [" ".join(f"{v + 1}/{v + 1}/1" for v in triangle) for triangle in mini.triangles]
        names = ["jawOpen", "mouthSmile_L", "eyeBlink_R"]

        def write(name, vertices, with_faces=False):
            lines = ["mtllib ICTFaceModelMaterial.mtl", *(f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in vertices / 10)]
            if with_faces:
                lines += [f"vt {k / len(mini):.6f} 0.5" for k in range(len(mini))]
                lines += ["usemtl face", "f 1/1/1 2/2/1 3/3/1 4/4/1", *(f"f {face}" for face in faces)]
            (folder / f"{name}.obj").write_text("\n".join(lines) + "\n")

        write("generic_neutral_mesh", mini.mean, with_faces=True)
        for k, shape in enumerate(mini.identity):
            write(f"identity{k:03d}", mini.mean + shape)
        for name, shape in zip(names, mini.expression, strict=True):
            write(name, mini.mean + shape)
        content = {"expressions": names, "idx_to_landmark_verts": landmarks or mini.landmarks}
        (folder / "vertex_indices.json").write_text(json.dumps(content))

    def test_round_trip(self, tmp_path, mini):
        self.write(tmp_path / "FaceXModel", mini)
        for path in (tmp_path, tmp_path / "FaceXModel"):
            model = MorphableModel.load(path)
            close(model.mean, mini.mean)
            close(model.identity, mini.identity)
            assert torch.equal(model.triangles[2:], torch.from_numpy(mini.triangles))
            assert model.triangles[:2].tolist() == [[0, 1, 2], [0, 2, 3]]
            assert model.landmarks.tolist() == mini.landmarks
            assert_close(model.uv[:, 0], torch.arange(len(mini)) / len(mini), atol=1e-5, rtol=0)
        power = model.expression.flatten(1).square().sum()
        assert_close(power.double(), torch.tensor(np.square(0.25 * mini.expression).sum()), rtol=1e-3, atol=0)

    def test_rejects_a_mesh_of_another_size(self, tmp_path, mini):
        self.write(tmp_path / "FaceXModel", mini)
        (tmp_path / "FaceXModel" / "identity001.obj").write_text("v 1 2 3\n")
        with pytest.raises(InputError, match=r"identity001.obj holds vertices of shape \(1, 3\), expected"):
            MorphableModel.load(tmp_path)

    def test_rejects_a_missing_expression(self, tmp_path, mini):
        self.write(tmp_path / "FaceXModel", mini)
        (tmp_path / "FaceXModel" / "jawOpen.obj").unlink()
        with pytest.raises(InputError, match=r"jawOpen.obj is missing or damaged"):
            MorphableModel.load(tmp_path)

    def test_rejects_another_folder(self, tmp_path):
        with pytest.raises(InputError, match=r"holds no generic_neutral_mesh.obj; pass the folder FaceXModel"):
            MorphableModel.load(tmp_path)


class TestLandmarks:
    def test_completes_a_list(self, mini):
        known = {number: mini.landmarks[number] for number in _NAMED.values()}
        completed = all_landmarks("mini", mini.mean, known)
        assert np.linalg.norm(mini.mean[completed] - mini.mean[mini.landmarks], axis=1).max() < 3

    def test_completes_a_list_for_a_face_of_another_size(self, mini):
        larger = mini.mean * [1.1, 0.95, 1.05] + [3.0, -5.0, 40.0]
        known = {number: mini.landmarks[number] for number in _NAMED.values()}
        completed = all_landmarks("mini", larger, known)
        assert np.linalg.norm(larger[completed] - larger[mini.landmarks], axis=1).max() < 4

    @pytest.mark.parametrize(
        ("known", "message"),
        [
            (lambda mini: dict(list(enumerate(mini.landmarks))[:5]), "at least 9 of them, got 5"),
            (lambda mini: [*mini.landmarks[:-1], 10**6], "must be vertices from 0 to"),
            (lambda mini: mini.landmarks[::-1], "does not look along"),
        ],
    )
    def test_rejects_wrong_lists(self, mini, known, message):
        with pytest.raises(InputError, match=message):
            all_landmarks("mini", mini.mean, known(mini))

    def test_rejects_a_mirrored_mesh(self, mini):
        with pytest.raises(InputError, match=r"does not look along \+z with y up"):
            all_landmarks("mini", mini.mean * [-1, 1, 1], mini.landmarks)


class TestAssemble:
    def make(self, mini, **changes):
        content = {
            "mean": mini.mean,
            "identity": mini.identity,
            "expression": mini.expression,
            "triangles": mini.triangles,
            "landmarks": mini.landmarks,
        }
        return assemble(name="mini", licence="none", source="test", **(content | changes))

    def test_face_proper_of_a_whole_head(self):
        ours = MorphableModel.procedural()
        model = assemble(
            name="head",
            licence="none",
            source="test",
            mean=ours.mean,
            identity=ours.identity[:2],
            expression=ours.expression[:2],
            triangles=ours.triangles,
            landmarks=ours.landmarks.tolist(),
        )
        centre = ours.mean[ours.triangles].mean(dim=1)
        skin = centre[:, 2] > 20
        agree = (model.face == ours.face)[skin].float().mean()
        assert agree > 0.85
        assert not model.face[centre[:, 2] < 0].any()

    def test_turns_triangles_outwards(self, mini):
        assert torch.equal(self.make(mini).triangles, self.make(mini, triangles=mini.triangles[:, ::-1]).triangles)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"identity": np.zeros((2, 7, 3))}, r"the identity basis of mini has shape \(2, 7, 3\), expected \(2, "),
            ({"mean": np.zeros((7, 2))}, r"the mean of mini has shape \(7, 2\), expected \(7, 3\)"),
            ({"triangles": [[0, 1, 10**6]]}, "mini has triangles of the vertices 0 to 1000000, but only"),
        ],
    )
    def test_rejects_what_does_not_fit(self, mini, changes, message):
        with pytest.raises(InputError, match=message):
            self.make(mini, **changes)


def test_converted_models_are_written_and_read(tmp_path, mini):
    TestSurrey().write(tmp_path / "sfm.bin", mini, expression="blendshapes")
    model = from_file(tmp_path / "sfm.bin", landmarks=mini.landmarks)
    model.save(tmp_path / "sfm.safetensors")
    again = MorphableModel.load(tmp_path / "sfm.safetensors")
    for name, value in vars(model).items():
        other = getattr(again, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


class TestCommand:
    def run(self, *arguments):
        return CliRunner().invoke(app, ["convert-model", *map(str, arguments)])

    def test_converts_with_a_list_of_landmarks(self, tmp_path, mini):
        TestSurrey().write(tmp_path / "sfm.bin", mini, expression="blendshapes")
        (tmp_path / "points.json").write_text(json.dumps(mini.landmarks))
        out = tmp_path / "sfm.safetensors"
        result = self.run(tmp_path / "sfm.bin", out, "--landmarks", tmp_path / "points.json")
        assert result.exit_code == 0, result.exception
        assert "4 identity and 2 expression components; licence: Surrey" in result.output
        assert MorphableModel.load(out).landmarks.tolist() == mini.landmarks

    @pytest.mark.parametrize(
        ("content", "out", "message"),
        [
            ("[1, 2", "m.safetensors", "is missing or no JSON"),
            ('{"a": 1}', "m.safetensors", "must hold a JSON list of 68 vertex numbers"),
            ("[1]", "m.npz", "end it in .safetensors"),
            ("[1]", "m.safetensors", "at least 9 of them, got 1"),
        ],
    )
    def test_rejects(self, tmp_path, mini, content, out, message):
        TestSurrey().write(tmp_path / "sfm.bin", mini)
        (tmp_path / "points.json").write_text(content)
        result = self.run(tmp_path / "sfm.bin", tmp_path / out, "--landmarks", tmp_path / "points.json")
        assert isinstance(result.exception, InputError)
        assert message in str(result.exception)
        assert not (tmp_path / out).exists()
