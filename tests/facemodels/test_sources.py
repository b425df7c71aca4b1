import gzip
import io
import os
import tarfile
import zipfile

import datasets
import numpy as np
import pytest
from PIL import Image

from facemodels.data import sources
from facemodels.data.hub import HubSet
from facemodels.data.sources import Joined, open_source, photos_from
from facemodels.errors import InputError


def picture(number: int, size: int = 20) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


def noise(seed: int) -> bytes:
    """A picture of some kB that no packing makes smaller."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


FILES = {
    name: picture(number) for number, name in enumerate(["b.png", "a.jpg", "more/c.png", "more.png", "more/d/e.PNG"])
}
SORTED = ["a.jpg", "b.png", "more.png", "more/c.png", "more/d/e.PNG"]


def read_all(source):
    return [(photo.name, photo.read()) for photo in source.photos()]


def reason(photo):
    with pytest.raises(InputError) as caught:
        photo.read()
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "notes.txt").write_text("not a photo")
    (root / ".hidden.png").write_bytes(b"x")
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails/a.png").write_bytes(b"x")
    return root


class TestFolder:
    def test_order_names_and_content(self, folder):
        source = open_source(folder)
        assert read_all(source) == [(name, FILES[name]) for name in SORTED] and source.count() == 5
        assert SORTED == sorted(FILES)

    def test_starts_anywhere_and_ends_early(self, folder):
        source = open_source(folder)
        assert [photo.name for photo in photos_from(source, 2, None)] == SORTED[2:]
        assert [photo.name for photo in photos_from(source, 2, 4)] == SORTED[2:4]

    def test_a_file_called_like_that_of_a_saved_set(self, folder):
        (folder / "state.json").write_text("{}")
        assert len(read_all(open_source(folder))) == 5

    def test_a_link_to_the_folder_above_does_not_go_round(self, folder):
        (folder / "loop").symlink_to(folder)
        assert len(read_all(open_source(folder))) == 5

    def test_fingerprint(self, folder):
        before = open_source(folder).fingerprint()
        assert open_source(folder).fingerprint() == before
        (folder / "b.png").write_bytes(b"longer than it was" * 1000)
        assert open_source(folder).fingerprint() != before

    def test_files_that_cannot_be_read(self, folder, monkeypatch):
        (folder / "gone.png").symlink_to(folder / "nowhere")
        monkeypatch.setattr(sources, "MAX_BYTES", 1000)
        (folder / "film.png").write_bytes(bytes(2000))
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
        photos = {photo.name: photo for photo in open_source(folder).photos()}
        assert "gone.png cannot be read (No such file or directory)" in reason(photos["gone.png"])
        assert "film.png is larger than 0 MB; is it a photo?" in reason(photos["film.png"])
        assert photos["caf?.png"].read() == b"x"


class TestZip:
    def test_is_the_folder(self, folder, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
            archive.writestr("__MACOSX/._face.png", b"x")
        source = open_source(tmp_path / "x.zip")
        assert read_all(source) == read_all(open_source(folder)) and source.count() == 5

    @pytest.mark.parametrize("name", ["../../climbs/out.png", "/etc/out.png", "a/../../out.png", "C:/out.png"])
    def test_paths_that_climb_out(self, tmp_path, name):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr(name, FILES["b.png"])
            archive.writestr("b.png", FILES["b.png"])
        photos = list(open_source(tmp_path / "x.zip").photos())
        assert sorted(photo.name for photo in photos) == sorted([name, "b.png"])
        bad = next(photo for photo in photos if photo.name == name)
        assert reason(bad) == f"the path {name} leads out of the archive; nothing was read or unpacked"
        assert os.listdir(tmp_path) == ["x.zip"]

    def test_damaged_member(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("a.png", bytes(1000))
            archive.writestr("b.png", FILES["b.png"])
        content = bytearray((tmp_path / "x.zip").read_bytes())
        content[200] ^= 255
        (tmp_path / "x.zip").write_bytes(content)
        first, second = [
            photo.read if photo.name == "b.png" else reason(photo) for photo in open_source(tmp_path / "x.zip").photos()
        ]
        assert "a.png cannot be read from" in first and callable(second)

    def test_bomb(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sources, "MAX_BYTES", 10**6)
        with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", bytes(2 * 10**6))
        assert "is larger than 1 MB" in reason(next(open_source(tmp_path / "x.zip").photos()))

    def test_damaged(self, tmp_path):
        (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 and nothing more")
        with pytest.raises(InputError, match=r"x.zip is a damaged zip file; put the photos into a folder"):
            open_source(tmp_path / "x.zip")

    def test_damaged_contents(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("a.png", FILES["a.jpg"])
        content = bytearray((tmp_path / "x.zip").read_bytes())
        content[content.find(b"PK\x01\x02") + 2] ^= 255
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(InputError, match=r"x.zip is a damaged zip file \(Bad magic number.*put the photos into a"):
            open_source(tmp_path / "x.zip")

    def test_damaged_lzma(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("a.png", noise(0))
        content = (tmp_path / "x.zip").read_bytes()
        outcomes = []
        for place in range(60, 1000, 47):
            (tmp_path / "x.zip").write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
            outcomes.append(reason(next(open_source(tmp_path / "x.zip").photos())))
        assert all("a.png cannot be read from" in text for text in outcomes)


class TestTar:
    @pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.tar.xz"])
    def test_content_in_its_own_order(self, folder, tmp_path, name):
        with tarfile.open(tmp_path / name, "w:" + {"tgz": "gz", "tar": ""}.get(name[2:], name[6:])) as archive:
            for file in FILES:
                archive.add(folder / file, file)
            archive.add(folder / "notes.txt", "notes.txt")
        source = open_source(tmp_path / name)
        assert read_all(source) == list(FILES.items()) and source.count() is None
        assert [photo.name for photo in photos_from(source, 3, None)] == list(FILES)[3:]

    def test_members_that_are_no_files(self, folder, tmp_path):
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
            archive.add(folder / "b.png", "../out.png")
            archive.add(folder / "b.png", "b.png")
        first, second, third = open_source(tmp_path / "x.tar").photos()
        assert reason(first) == "link.png is a link, not a file"
        assert "../out.png leads out of the archive" in reason(second)
        assert third.name == "b.png"

    @pytest.mark.parametrize("packed", [False, True])
    def test_breaks_off(self, folder, tmp_path, packed):
        """What lies before the break is used, and the break is told."""
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            for number in range(40):
                archive.add(folder / "b.png", f"{number:02d}.png")
        content = (tmp_path / "x.tar").read_bytes()
        content = gzip.compress(content) if packed else content
        (tmp_path / "x.tar").write_bytes(content[: len(content) // 2 + 100])
        names, reasons = [], []
        for photo in open_source(tmp_path / "x.tar").photos():
            try:
                photo.read()
                names.append(photo.name)
            except InputError as error:
                reasons.append(str(error))
        assert names[0] == "00.png" and 3 <= len(names) < 40
        assert any("breaks off after" in text or "is cut off" in text for text in reasons)

    @pytest.mark.parametrize("packing", ["", "gz", "xz"])
    def test_breaks_off_anywhere(self, tmp_path, packing):
        pictures = {f"{number}.png": noise(number) for number in range(4)}
        with tarfile.open(tmp_path / "x.tar", f"w:{packing}") as archive:
            for name, content in pictures.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        whole = (tmp_path / "x.tar").read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 255
        for content in (damaged, *(whole[:cut] for cut in range(100, len(whole) - 10_000, 1777))):
            (tmp_path / "x.tar").write_bytes(content)
            for photo in open_source(tmp_path / "x.tar").photos():
                try:
                    photo.read()
                except InputError as error:
                    assert "cannot be read" in str(error) or "is cut off" in str(error) or "breaks off" in str(error)


class TestVideo:
    @pytest.fixture
    def clip(self, tmp_path):
        av = pytest.importorskip("av", reason="needs PyAV: pip install multilinear-faces[faces]")
        with av.open(tmp_path / "clip.mp4", "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(10):
                pixels = np.full((48, 64, 3), 20 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return tmp_path / "clip.mp4"

    def test_frames(self, clip):
        frames = read_all(open_source(clip))
        assert [name for name, _ in frames] == [f"clip.mp4#{number:06d}" for number in range(10)]
        assert all(abs(pixels.mean() - 20 * number) < 6 for number, (_, pixels) in enumerate(frames))
        assert frames[0][1].shape == (48, 64, 3) and frames[0][1].dtype == np.uint8

    def test_step(self, clip):
        source = open_source(clip, frame_step=4)
        assert [photo.name[-2:] for photo in source.photos()] == ["00", "04", "08"] and source.count() == 3
        assert [photo.name[-2:] for photo in photos_from(source, 1, None)] == ["04", "08"]
        with pytest.raises(InputError, match="the frame step must be at least 1, got 0"):
            open_source(clip, frame_step=0)

    def test_breaks_off_or_is_none(self, clip, tmp_path):
        (tmp_path / "text.mp4").write_text("this is text")
        with pytest.raises(InputError, match=r"text.mp4 cannot be read as a video"):
            open_source(tmp_path / "text.mp4")


class TestHub:
    @pytest.fixture
    def table(self, folder):
        rows = {"label": [0, 1, 2], "photo": [str(folder / name) for name in ("b.png", "a.jpg", "more/c.png")]}
        return datasets.Dataset.from_dict(rows).cast_column("photo", datasets.Image())

    def check(self, source):
        photos = read_all(source)
        assert [np.asarray(Image.open(io.BytesIO(content)))[0, 0, 0] for _, content in photos] == [0, 1, 2]
        assert [photo.name for photo in photos_from(source, 1, 2)] == [photos[1][0]]

    def test_saved(self, table, tmp_path):
        table.save_to_disk(str(tmp_path / "saved"))
        self.check(open_source(tmp_path / "saved"))

    def test_saved_splits(self, table, tmp_path):
        both = datasets.DatasetDict({"train": table.select([0, 1]), "test": table.select([2])})
        both.save_to_disk(str(tmp_path / "saved"))
        assert len(read_all(open_source(tmp_path / "saved"))) == 3

    def test_splits_come_in_their_order(self, table, tmp_path):
        datasets.DatasetDict({"train": table.select([2]), "test": table.select([0])}).save_to_disk(tmp_path / "saved")
        assert [content for _, content in read_all(open_source(tmp_path / "saved"))] == [
            FILES["more/c.png"],
            FILES["b.png"],
        ]

    @pytest.mark.parametrize("splits", [False, True])
    def test_what_was_computed_of_a_saved_set_is_no_part_of_it(self, table, tmp_path, splits):
        """`datasets` keeps the results of `map` and `filter` beside the files of the set."""
        saved = datasets.DatasetDict({"train": table, "test": table}) if splits else table
        saved.save_to_disk(tmp_path / "saved")
        before = read_all(open_source(tmp_path / "saved"))
        files = set((tmp_path / "saved").rglob("*.arrow"))
        loaded = datasets.load_from_disk(tmp_path / "saved")
        loaded.map(lambda row: {"next": row["label"] + 1})
        loaded.filter(lambda row: row["label"] < 2)
        assert set((tmp_path / "saved").rglob("*.arrow")) > files
        assert read_all(open_source(tmp_path / "saved")) == before and len(before) == (6 if splits else 3)

    @pytest.mark.parametrize(
        ("state", "why"),
        [
            ("{", "Expecting property name"),
            ('{"_data_files": [{"filename": "gone.arrow"}]}', "there is no .*gone.arrow"),
        ],
    )
    def test_damaged_saved_set(self, tmp_path, state, why):
        (tmp_path / "state.json").write_text(state)
        (tmp_path / "other.arrow").touch()
        with pytest.raises(InputError, match=f"cannot be read as a dataset \\({why}"):
            open_source(tmp_path)

    def test_parquet(self, table, tmp_path):
        (tmp_path / "set").mkdir()
        table.to_parquet(tmp_path / "set/x.parquet")
        source = open_source(tmp_path / "set/x.parquet")
        self.check(source)
        assert source.count() == 3
        self.check(open_source(tmp_path / "set"))

    def test_rows_that_hold_nothing(self, monkeypatch):
        rows = datasets.Dataset.from_dict({"photo": [None, "/no/where.png"]}).cast_column("photo", datasets.Image())
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **options: {"train": rows.to_iterable_dataset()})
        reasons = [reason(photo) for photo in open_source("somebody/faces").photos()]
        assert reasons[0] == "row 0 holds no image" and "row 1 points at a file" in reasons[1]

    def test_without_images(self, tmp_path):
        datasets.Dataset.from_dict({"label": [1]}).to_parquet(tmp_path / "x.parquet")
        with pytest.raises(InputError, match=r"holds no column of images, only label"):
            read_all(open_source(tmp_path / "x.parquet"))

    def test_damaged(self, tmp_path):
        (tmp_path / "x.parquet").write_text("this is text")
        with pytest.raises(InputError, match=r"x.parquet cannot be read as a dataset"):
            open_source(tmp_path / "x.parquet")

    def test_on_the_hub(self, table, monkeypatch):
        """The hub is asked for a stream, of one split where one is named."""
        asked = []

        def load(name, **options):
            asked.append((name, options))
            stream = table.to_iterable_dataset()
            return stream if options["split"] else {"train": stream}

        monkeypatch.setattr(datasets, "load_dataset", load)
        self.check(open_source("somebody/faces"))
        self.check(open_source("somebody/faces:test"))
        assert asked[0] == ("somebody/faces", {"split": None, "streaming": True})
        assert asked[-1] == ("somebody/faces", {"split": "test", "streaming": True})

    def test_hub_does_not_answer(self, monkeypatch):
        def load(name, **options):
            raise ConnectionError("no network\nand much more text")

        monkeypatch.setattr(datasets, "load_dataset", load)
        with pytest.raises(InputError, match=r"the dataset somebody/faces cannot be opened \(no network\); check"):
            read_all(HubSet.on_hub("somebody/faces"))


class TestJoined:
    def test_names_say_which(self, folder, tmp_path):
        (tmp_path / "x.zip").touch()
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("b.png", FILES["b.png"])
        both = Joined((open_source(folder), open_source(tmp_path / "x.zip")))
        assert [photo.name for photo in both.photos()] == [*(f"photos/{name}" for name in SORTED), "x.zip/b.png"]
        assert both.count() == 6
        assert both.fingerprint() != Joined(both.sources[::-1]).fingerprint()
        twice = Joined((open_source(folder), open_source(folder)))
        assert len({photo.name for photo in twice.photos()}) == 10

    def test_one_keeps_its_names(self, folder):
        assert [photo.name for photo in Joined((open_source(folder),)).photos()] == SORTED


class TestErrors:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(InputError, match=r"there is no folder or file .*nowhere; check the path"):
            open_source(tmp_path / "nowhere")
        with pytest.raises(InputError, match=r"no photos in .*; photos end in .avif"):
            open_source(tmp_path)
        (tmp_path / "x.doc").write_text("x")
        with pytest.raises(InputError, match=r"photos come from folders, zip and tar files, .*x.doc is none of them"):
            open_source(tmp_path / "x.doc")
