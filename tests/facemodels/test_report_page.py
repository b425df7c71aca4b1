"""The report: a page that stands alone, sections that say why they are missing, labels that must fit."""

import base64
import csv
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_rows
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.baselines import SHIPPED_Z0, AdversarialConfig, train_adversarial
from facemodels.config import NetworkConfig
from facemodels.data.dataset import write_prepared
from facemodels.data.factors import sample_factors
from facemodels.data.synthetic import draw, synthesise_set
from facemodels.errors import InputError
from facemodels.evaluation import charts, sections
from facemodels.evaluation.html import Content, Figure, Section, Table, page
from facemodels.evaluation.material import OURS, PCA, TENSORFACES, UNNAMED, Z0, Pair, gather, whole_grid
from facemodels.evaluation.page import ReportSettings, make_sections, report
from facemodels.networks.verification.small import FACTS
from facemodels.networks.verification.verifier import Verifier

NAMES = [name for name, _, _ in sections.SECTIONS]


class Checker(HTMLParser):
    """Complains of tags that are not closed, and gathers what a page refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.ids = [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.images += [values["src"]] if tag == "img" else []
        self.links += [values["href"]] if tag == "a" else []
        self.ids += [values["id"]] if "id" in values else []
        if tag == "img":
            assert values["alt"]
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write_labels(path, names, **columns):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", *columns])
        table.writerows(zip(names, *columns.values(), strict=True))
    return path


@pytest.fixture(scope="session")
def labelled_set(tmp_path_factory, morphable):
    """48 faces of two persons, two expressions and two poses, and the table that says so."""
    folder = tmp_path_factory.mktemp("labelled")
    prepared = write_prepared(folder / "set", make_rows(48, held_out=24), morphable, {"source": "made for tests"})
    which = np.arange(48)
    labels = write_labels(
        folder / "labels.csv",
        prepared.table["name"][:],
        identity=[f"person {k // 4 % 2}" for k in which],
        expression=np.where(which // 2 % 2, "happy", "sad"),
        pose=np.where(which % 2, "left", "right"),
    )
    return prepared, labels


class TestPage:
    SECTIONS = (
        Section(
            "one", "The <first>", Content("A & `B < C`.\n\nMore.", [Figure(Image.new("RGB", (3, 2)), "small", "A dot")])
        ),
        Section(
            "two", "The second", Content("", [Table(["", "share"], [["ours", "12 %"], ["theirs", "–"]], best={0: 1})])
        ),
        Section("three", "The third", missing="there is no <photo>"),
    )

    def test_stands_alone_and_is_well_formed(self):
        text = page("Faces", "Many.", self.SECTIONS, "Made today.")
        found = Checker(text)
        assert found.links == ["#one", "#two", "#three"] and found.ids == ["one", "two", "three"]
        assert (
            "The &lt;first&gt;" in text
            and "A &amp; <code>B &lt; C</code>." in text
            and "there is no &lt;photo&gt;" in text
        )
        assert not re.search(r'(src|href)="(?!data:|#)', text) and "<script" not in text

    def test_pictures_are_inside(self):
        (source,) = Checker(page("Faces", "", self.SECTIONS)).images
        kind, data = source.split(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (3, 2)

    def test_numbers_stand_flush_right_and_the_best_is_bold(self):
        text = page("Faces", "", self.SECTIONS)
        assert '<td class="n best">12 %</td>' in text and '<td class="n">–</td>' in text and "<td>ours</td>" in text


class TestCharts:
    def test_the_same_points_give_the_same_drawing(self):
        points = np.random.default_rng(0).normal(size=(20, 2))
        labels = ["15°", "-15°"] * 10
        one, two = (charts.scatters({"ours": points, "Z0": -points}, labels) for _ in range(2))
        assert [a for a, b in zip(one.splitlines(), two.splitlines(), strict=True) if a != b] == []
        assert one.startswith("<?xml") and one != charts.scatters({"ours": points}, labels)

    def test_matrix_and_lines(self):
        values = np.array([[1.0, 0.1], [np.nan, 0.9]])
        assert "<svg" in charts.matrix(values, ["a", "b"], ["c", "d"], across="told", down="from")
        assert "<svg" in charts.lines({"ours": ([0, 1], [0, 1]), "Z0": ([0, 1], [1, 0])}, across="amount", up="turn")


class TestGather:
    def test_labels_come_from_the_table_in_the_order_of_the_faces(self, model, labelled_set):
        prepared, labels = labelled_set
        m = gather(model, prepared, split="all", limit=7, labels=labels)
        assert len(m.faces) == 7 and set(m.labels) == {"identity", "expression", "pose"}
        expected = np.where(np.array(m.chosen) // 2 % 2, "happy", "sad")
        assert (m.labels["expression"] == expected).all()

    def test_a_column_stands_in_for_the_expression(self, model, prepared, tmp_path):
        names = prepared.split("test")["name"][:]
        labels = write_labels(tmp_path / "labels.csv", names, Smiling=[0, 1] * 4, Male=[1] * 8)
        assert gather(model, prepared, labels=labels).labels["expression"].tolist() == ["0", "1"] * 4
        with pytest.raises(
            InputError, match="at least one of identity, expression, pose, light, Bald; it has Male, Smiling, file"
        ):
            gather(model, prepared, labels=labels, label="Bald")

    def test_what_does_not_fit_is_refused(self, model, prepared, tmp_path):
        labels = write_labels(tmp_path / "labels.csv", ["other.jpg"], identity=[1])
        with pytest.raises(InputError, match=r"names none of the faces of the set; .* such as 000016\.jpg"):
            gather(model, prepared, labels=labels)
        with pytest.raises(InputError, match="cannot be read as CSV"):
            gather(model, prepared, labels=tmp_path / "nothing.csv")
        with pytest.raises(InputError, match="holds no faces of the split 'nobody'"):
            gather(model, prepared, split="nobody")

    def test_faces_without_a_label_are_left_out_of_what_needs_one(self, model, prepared, tmp_path):
        names = [f"photos/{name}" for name in prepared.split("test")["name"][:6]]
        labels = write_labels(
            tmp_path / "labels.csv", names, expression=["a", "b", "", "b", "a", "a"], identity=[1] * 6
        )
        m = gather(model, prepared, labels=labels)
        assert len(m.faces) == 8  # all known faces show the same person
        known = {name: values.tolist() for name, values in m.often(2).items()}
        assert known == {"expression": ["a", "b", "", "b", "a", "a", "", ""]}
        assert m.often(3) == {}

    def test_near_frontal_faces_alone(self, model, prepared, tmp_path):
        everyone, m = gather(model, prepared, split="all"), gather(model, prepared, split="all", frontal=True)
        assert 0 < len(m.faces) < len(everyone.faces) and m.faces.frontal.all()
        m.teacher = everyone.teacher = prepared
        assert len(m.lesson) == sum(prepared.split("train")["frontal"][:]) < len(everyone.lesson)
        rows = [row | {"frontal": False} for row in make_rows(4)]
        aside = write_prepared(tmp_path / "aside", rows, prepared.morphable, {"source": "made for tests"})
        with pytest.raises(InputError, match="none of the faces is near-frontal"):
            gather(model, aside, split="all", frontal=True)

    def test_tensorfaces_learn_from_persons_seen_in_all_combinations(self, model, labelled_set, tmp_path):
        prepared, labels = labelled_set
        m = gather(model, prepared, split="all", labels=labels)
        assert m.labelled_factors == {}  # nobody teaches
        m = dataclasses.replace(m, teacher=prepared)
        assert {name: codes.shape for name, codes in m.labelled_factors.items()} == {
            name: (48, 2) for name in ("identity", "expression", "pose")
        }
        names = prepared.split("train")["name"][:]
        who = [k // 2 for k in range(len(names))]  # nobody smiles and is serious
        smiling = write_labels(tmp_path / "labels.csv", names, identity=who, Smiling=[k // 2 % 2 for k in range(24)])
        m = gather(model, prepared, split="train", labels=smiling)
        m.teacher = prepared
        assert m.labelled_factors == {}
        other = write_labels(tmp_path / "other.csv", prepared.split("test")["name"][:], identity=who, Smiling=who)
        m = gather(model, prepared, split="test", labels=other)
        m.teacher = prepared
        assert m.labelled_factors == {}  # the table knows nobody who teaches

    def test_faces_aside_teach_no_tensorfaces_without_poses(self, model, prepared, tmp_path):
        rows = prepared.split("train")
        ahead = np.array(rows["frontal"][:])
        who, smiling = np.where(ahead, "", "aside").astype(object), np.zeros(len(rows), int)
        who[np.flatnonzero(ahead)[:4]], smiling[np.flatnonzero(ahead)[:4]] = list("aabb"), [0, 1, 0, 1]
        smiling[np.flatnonzero(~ahead)[::2]] = 1
        labels = write_labels(tmp_path / "labels.csv", rows["name"][:], identity=who, Smiling=smiling)
        m = gather(model, prepared, split="train", labels=labels)
        m.teacher = prepared
        assert m.labelled_factors["identity"].shape[1] == 2  # a and b

    def test_donors_differ_also_where_nobody_is_known(self, model, prepared, tmp_path):
        names = prepared.table["name"][:]
        for who in ("", "ann"):
            labels = write_labels(tmp_path / "labels.csv", names, Smiling=[0, 1] * 12, identity=[who] * 24)
            m = gather(model, prepared, split="all", labels=labels)
            pair = m.pairs("expression")
            assert len(set(pair.donors)) == len(pair.donors) == 6
            assert len(set(m.persons.tolist())) == (1 if who else 24)

    def test_a_grid_is_whole(self):
        labels = {
            "identity": np.array(["a", "a", "a", "b", "b", "c", "c", "", "d", "d"]),
            "expression": np.array(["x", "y", "y", "x", "y", "x", "", "y", "y", "x"]),
            "light": np.array(["1"] * 10),
        }
        rows, numbers = whole_grid(labels)
        assert rows == [0, 1, 2, 3, 4, 8, 9]
        assert numbers["identity"].tolist() == [0, 0, 0, 1, 1, 2, 2] and numbers["light"].tolist() == [0] * 7
        assert whole_grid({"identity": labels["identity"]}) == ([], {})
        assert whole_grid({name: values[:3] for name, values in labels.items()}) == ([], {})

    def test_pairs_are_of_two_persons_and_differ_most(self, model, labelled_set):
        prepared, labels = labelled_set
        m = gather(model, prepared, split="all", labels=labels)
        pair = m.pairs("expression", 5)
        assert len(set(pair.donors)) == len(pair.donors) == 5
        for source, donor in pair:
            assert m.labels["identity"][source] != m.labels["identity"][donor]
        source, donor = next(iter(pair))
        others = np.flatnonzero(m.labels["identity"] != m.labels["identity"][source])
        distance = (m.faces.expression[others] - m.faces.expression[source]).norm(dim=1)
        assert donor == others[int(distance.argmax())]


@pytest.mark.slow
def test_the_whole_report(model, labelled_set, tmp_path):
    prepared, labels = labelled_set
    z0 = tmp_path / "z0.safetensors"
    train_adversarial(prepared, z0, AdversarialConfig(channels=(4, 4, 4), intermediate=8, hidden=8, steps=2, batch=4))
    out = tmp_path / "report"
    settings = ReportSettings(split="all", limit=None)
    others = make_rows(48, seed=9, held_out=24)  # of the same names, so that the table tells who they are, too
    teacher = write_prepared(tmp_path / "teacher", others, prepared.morphable, {"source": "made for tests"})
    names = {"name": "tiny", "labels": labels, "z0": z0}
    written = report(model, out, prepared, settings, **names, teacher=teacher, progress=False)
    text = written.read_text()
    found = Checker(text)
    assert found.ids == NAMES and len(found.images) > 10
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "report.json"]
    figures = json.loads((out / "report.json").read_text())
    missing = {name: one["missing"] for name, one in figures["sections"].items() if "missing" in one}
    assert set(missing) == {"fidelity", "film", "persons"} and "nobody knows what a photo" in missing["fidelity"]
    table = figures["sections"]["table-1"]["figures"]
    assert set(table) == {OURS, Z0, PCA, TENSORFACES, UNNAMED}
    assert set(table[OURS]) == {"identity", "expression", "pose", "expression of new persons", "pose of new persons"}
    assert table[OURS]["identity"]["faces"] == 48 and table[OURS]["pose"]["paper"] == 0.9573
    assert "83.85%" in text and not re.search(r"\bnan\b", re.sub(r'src="[^"]*"', "", text))


@pytest.mark.slow
def test_what_is_measured_teaches_nobody(model, labelled_set, tmp_path, monkeypatch):
    from facemodels.evaluation import page as module

    monkeypatch.setattr(module, "SECTIONS", [one for one in sections.SECTIONS if one[0] == "after-swap"])
    monkeypatch.setattr(sections, "_READ", 8)
    prepared, _ = labelled_set

    def judged(split, **given):
        text = report(model, tmp_path, prepared, ReportSettings(split=split, steps=0), progress=False, **given)
        return text.read_text(), json.loads((tmp_path / "report.json").read_text())["sections"]["after-swap"]

    for split in ("all", "train"):
        text, made = judged(split)
        assert "name a set with --taught-by" in made["missing"]
        assert "stand beside us; name a set with --taught-by" in text
        with pytest.raises(InputError, match=f"cannot teach what its own split '{split}' is measured by"):
            judged(split, teacher=prepared)
    assert "judge" in judged("test")[1]["figures"]
    teacher = write_prepared(tmp_path / "other", make_rows(20, seed=9), prepared.morphable, {"source": "tests"})
    text, made = judged("train", teacher=teacher)
    assert "judge" in made["figures"] and "from the split “train” of another set, 20 faces" in text


def test_persons_who_are_not_known_are_not_counted(model, prepared, tmp_path):
    from facemodels.evaluation.page import _introduction

    names = prepared.table["name"][:]
    for who, words in {"": "photos (split", "ann": "photos, of 1 known persons (split"}.items():
        labels = write_labels(tmp_path / "labels.csv", names, identity=[who, *[""] * 23])
        assert words in _introduction(gather(model, prepared, split="all", labels=labels), "tiny")


def test_the_table_reaches_all_other_measures(model, prepared, tmp_path):
    names = prepared.table["name"][:]
    columns = {"Smiling": [0, 1] * 12, "identity": [k // 2 for k in range(24)]}
    m = gather(model, prepared, labels=write_labels(tmp_path / "labels.csv", names, **columns), frontal=True)
    m.teacher = prepared
    made = sections.everything(m)
    assert made.numbers["label"] == "Smiling" and "person_auc" in made.numbers["measures"]
    assert "also with `--frontal`" in made.text
    m = gather(model, prepared, labels=write_labels(tmp_path / "labels.csv", names, expression=["a", "b"] * 12))
    made = sections.everything(m)
    assert made.numbers["label"] is None and "frontal" not in made.text
    assert "The table of labels was not used here" in made.text and "has no column Smiling" in made.text


def test_a_section_names_its_own_limit(model, prepared, tmp_path):
    labels = write_labels(tmp_path / "labels.csv", prepared.table["name"][:], expression=["a"] * 20 + ["b"] * 4)
    m = gather(model, prepared, split="all", labels=labels)
    for section, limit in ((sections.embeddings, 6), (sections.table_1, 10)):
        with pytest.raises(InputError, match=f"labels that fewer than {limit} faces show"):
            section(m)


@pytest.mark.slow
def test_without_labels_and_baselines_sections_say_why(model, prepared, tmp_path):
    m = gather(model, prepared)  # nobody teaches
    made, seconds = make_sections(m, progress=False)
    missing = {section.name: section.missing for section in made if section.content is None}
    without = {"table-1", "maps", "leakage", "fidelity", "film", "after-swap", "monotony", "persons"}
    assert set(missing) == without and set(seconds) == set(NAMES)
    assert "give them with --labels CSV" in missing["table-1"]


class Thumbnail(torch.nn.Module):
    """Tells faces apart by their colours at 4 x 4 pixels."""

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) - 0.5


@pytest.fixture
def verifier():
    return Verifier(Thumbnail(), dataclasses.replace(FACTS, name="thumbnail", features=48))


@pytest.mark.parametrize("kind", ["photos", pytest.param("rendered", marks=pytest.mark.slow)])
def test_a_verifier_tells_whose_face_a_swap_shows(model, labelled_set, verifier, tmp_path, monkeypatch, kind):
    from facemodels.evaluation import page as module

    wanted = {"after-swap", "monotony", "persons", "measures"}
    monkeypatch.setattr(module, "SECTIONS", [one for one in sections.SECTIONS if one[0] in wanted])
    monkeypatch.setattr(sections, "_READ", 8)
    monkeypatch.setattr(sections, "_PATHS", 2)
    if kind == "photos":
        prepared, labels = labelled_set
    else:
        prepared, labels = synthesise_set(tmp_path / "set", count=40, held_out=0.5, seed=3), None
    settings = ReportSettings(steps=0)
    text = report(model, tmp_path, prepared, settings, labels=labels, verifier=verifier, progress=False).read_text()
    figures = {
        name: one["figures"] for name, one in json.loads((tmp_path / "report.json").read_text())["sections"].items()
    }
    assert set(figures) == wanted and "Not made" not in text and "(thumbnail)" in text
    persons = figures["persons"]
    assert set(persons["won"]) == {"expression", "pose", "light", "identity"} and 0 < persons["pairs"] < 24
    assert all(0 <= share <= 1 for share in persons["won"].values()) and -1 <= persons["strangers"] <= 1
    assert figures["after-swap"][OURS]["read"] == ["expression", "pose", "light", "identity"]
    assert "identity" in figures["monotony"] and figures["measures"]["verifier"] == "thumbnail"
    assert "taken_by_identity" in figures["measures"]["measures"]


def test_a_network_without_cores_has_no_shape_stream(network_config, morphable, prepared):
    config = dataclasses.replace(network_config, cores=False)
    m = gather(NeuroTensorialAutoencoder(config, morphable).eval(), prepared)
    assert "exported without its cores" in sections.decomposition(m).text
    assert isinstance(sections.shapes(m).parts[0], Figure)
    bare = gather(NeuroTensorialAutoencoder(config).eval(), prepared)
    with pytest.raises(InputError, match="carries no morphable model"):
        sections.shapes(bare)


def test_the_truth_of_synthetic_faces_is_shown(tmp_path):
    prepared = synthesise_set(tmp_path / "synthetic", count=16, held_out=0.5, seed=3)
    model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2)).eval()
    m = gather(model, prepared, split="all")
    pair = Pair([3, 12], [3, 12])
    truth = m.truth(pair, "pose")
    assert truth is not None and float((truth - m.images[pair.sources]).abs().max()) < 0.003
    assert m.labels["identity"].tolist() == [k // 4 for k in range(16)]
    assert torch.equal(m.images[0], prepared.faces("train").pictures()[0])


@pytest.mark.slow
def test_sections_of_exact_faces_say_that_they_take_all_poses(tmp_path, monkeypatch):
    small = {"_PAIRS": 2, "_MEASURED": 2, "EDITABLE": ("light",), "landmark_detector": lambda: None}
    for name, value in small.items():
        monkeypatch.setattr(sections, name, value)
    prepared = synthesise_set(tmp_path / "synthetic", count=16, held_out=0.5, seed=3)
    config = NetworkConfig(channels=(4, 4, 4), frontal_rank=2)
    m = gather(NeuroTensorialAutoencoder(config, prepared.morphable).eval(), prepared, split="all")
    assert "--frontal" not in sections.fidelity(m).text
    m.frontal = True
    for section in (sections.fidelity, sections.shapes):
        assert "These are faces in all poses, also with `--frontal`." in section(m).text


def test_a_film_of_exact_faces(monkeypatch):
    from facemodels.evaluation import film

    monkeypatch.setattr(film, "FRAMES", 5)
    monkeypatch.setattr(film, "_warped", lambda still, frames: None)
    model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2)).eval()
    driver, other, peak = (sample_factors(0, number) for number in (0, 4, 8))
    made = film.make_film(model, driver, other, peak)
    assert made.driver.shape == made.ours.shape == made.truth.shape == (5, 3, 64, 64) and made.warped is None
    first, last = made.driver[0], made.driver[4]
    assert_close(first, draw([driver])[0][0], atol=1e-4, rtol=0)
    assert_close(last, first, atol=1e-4, rtol=0)
    assert_close(made.truth[2:3], draw([dataclasses.replace(other, expression=peak.expression)])[0], atol=1e-4, rtol=0)


def test_z0_is_trained_once_and_kept(model, prepared, tmp_path, monkeypatch):
    from facemodels.evaluation import page as module

    monkeypatch.setattr(module, "SECTIONS", sections.SECTIONS[:1])
    settings = ReportSettings(steps=2)
    report(model, tmp_path, prepared, settings, progress=False)
    before = (tmp_path / "z0.safetensors").stat().st_mtime_ns
    text = report(model, tmp_path, prepared, settings, progress=False).read_text()
    assert (tmp_path / "z0.safetensors").stat().st_mtime_ns == before
    assert "Z0 learnt from 16 faces of “made for tests”, in 2 steps of 16." in text


def test_beside_rendered_faces_stands_the_z0_of_the_package(model, prepared, tmp_path, monkeypatch):
    from facemodels.evaluation import page as module

    monkeypatch.setattr(module, "train_adversarial", lambda *_, **__: "trained here")
    rendered = gather(model, synthesise_set(tmp_path / "set", count=8, held_out=0.5, seed=3))
    shipped = module._z0(rendered, tmp_path, ReportSettings(), False)
    assert shipped.learnt_from.endswith("faces of “wild” (seed 0)") and shipped.config.steps >= 5000
    assert SHIPPED_Z0.stat().st_size < 1_500_000
    photos = gather(model, prepared)
    photos.teacher = prepared
    assert module._z0(photos, tmp_path, ReportSettings(), False) == "trained here"
    assert module._z0(photos, tmp_path, ReportSettings(steps=0), False) is None


def test_without_a_set_faces_are_rendered_once(tmp_path, monkeypatch):
    from facemodels.evaluation import page as module

    monkeypatch.setattr(module, "SECTIONS", sections.SECTIONS[:1])
    monkeypatch.setattr(module, "_RENDERED", {"design": "portraits", "count": 16, "held_out": 0.5})
    model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2)).eval()
    settings = ReportSettings(steps=0)
    text = report(model, tmp_path / "new", settings=settings, workers=1, progress=False).read_text()
    assert "8 rendered faces, of 2 persons" in text
    assert "The baselines learnt from the split “train” of the same set, 8 faces.</p>" in text
    before = (tmp_path / "new" / "faces" / "preparation.json").stat().st_mtime_ns
    report(model, tmp_path / "new", settings=settings, workers=1, progress=False)
    assert (tmp_path / "new" / "faces" / "preparation.json").stat().st_mtime_ns == before
