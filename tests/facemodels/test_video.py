import os
import re

import numpy as np
import pytest
import torch
from drawn_faces import BrightFaces, picture, write_clip, write_photo
from torch.testing import assert_close

from facemodels.data.alignment import load_photo
from facemodels.data.video import Video
from facemodels.editing import refine, to_tensor, transfer
from facemodels.errors import InputError
from facemodels.movies import write_movie
from facemodels.video import _AWAY, animate, read_motion


@pytest.fixture
def template(tmp_path):
    return load_photo(write_photo(tmp_path / "template.png", 9, side=120), BrightFaces())


def read(path):
    return [photo.read() for photo in Video(str(path)).photos()]


class TestMotion:
    def test_codes_are_those_of_the_frames(self, model, tmp_path):
        clip = write_clip(tmp_path / "clip.mp4", [1, 1, 2, 2])
        motion = read_motion(model, clip, BrightFaces())
        assert (motion.length, motion.frames.tolist(), float(motion.rate)) == (4, [0, 1, 2, 3], 10)
        for row, frame in enumerate(read(clip)):
            landmarks = BrightFaces().detect(frame)
            crop = to_tensor(load_photo(_png(frame), BrightFaces()).crop)
            with torch.no_grad():
                assert_close(motion.expression[row : row + 1], model.encode(crop).expression)
            np.testing.assert_allclose(motion.five[row], landmarks.five, rtol=1e-5)

    def test_frames_without_a_face_hold_the_last(self, model, tmp_path):
        motion = read_motion(model, write_clip(tmp_path / "clip.mp4", [None, 1, None, None, 2, None]), BrightFaces())
        assert motion.rows().tolist() == [-1, 0, 0, 0, 1, 1]

    def test_cuts(self, model, tmp_path):
        """Dark frames are cuts, too: five changes from one picture to another."""
        motion = read_motion(model, write_clip(tmp_path / "clip.mp4", [1, 1, None, 1, 1]), BrightFaces())
        assert motion.cuts == 2 and len(np.unique(motion.shots)) == 2

    def test_the_nearest_face_is_followed(self, model, tmp_path):
        class Crossing(BrightFaces):
            """Two faces of which now one, now the other is larger."""

            def __init__(self):
                self.calls = 0

            def detect_all(self, image):
                self.calls += 1
                face = super().detect_all(image)[0]
                other = face.moved(np.array([[0.9, 0, 500.0], [0, 0.9, 0]]))
                return [face, other] if self.calls % 2 else [other, face]

        motion = read_motion(model, write_clip(tmp_path / "clip.mp4", [1, 1, 1, 1]), Crossing())
        assert (motion.five[:, :, 0] < 200).all() and motion.crowded == 4 and motion.cuts == 0
        motion = read_motion(model, write_clip(tmp_path / "clip.mp4", [1, 1, 1, 1]), Crossing(), face=2)
        assert (motion.five[:, :, 0] > 400).all()

    @pytest.mark.parametrize(
        ("missed", "seen"),
        [(1, "AAAAA-AAAA"), (_AWAY, "AAAAA" + _AWAY * "-" + "AAAA"), (_AWAY + 2, "AAAAA" + _AWAY * "-" + "BBBBBB")],
    )
    def test_a_missed_face_is_not_taken_for_another(self, model, tmp_path, missed, seen):
        """The largest face is missed in some frames that show another; if in too many, that one is followed."""

        class Missing(BrightFaces):
            def __init__(self):
                self.calls = 0

            def detect_all(self, image):
                self.calls += 1
                face = super().detect_all(image)[0]
                other = face.moved(np.array([[0.5, 0, 300.0], [0, 0.5, 0]]))
                return [other] if 5 < self.calls <= 5 + missed else [face, other]

        motion = read_motion(model, write_clip(tmp_path / "clip.mp4", [1] * (9 + missed)), Missing())
        followed = dict(zip(motion.frames, np.where(motion.five[:, 0, 0] < 200, "A", "B"), strict=True))
        assert "".join(followed.get(frame, "-") for frame in range(motion.length)) == seen
        assert motion.cuts == ("B" in seen)

    def test_another_face_in_the_same_place_begins_a_shot(self, model, tmp_path):
        class Jumping(BrightFaces):
            def __init__(self):
                self.calls = 0

            def detect_all(self, image):
                self.calls += 1
                face = super().detect_all(image)[0]
                return [face.moved(np.array([[1, 0, 300.0 * (self.calls > 2)], [0, 1, 0]]))]

        motion = read_motion(model, write_clip(tmp_path / "clip.mp4", [1, 1, 1, 1]), Jumping())
        assert motion.shots.tolist() == [0, 0, 1, 1]

    def test_a_cut_chooses_anew(self, model, tmp_path):
        class Replaced(BrightFaces):
            """Behind the cut a larger face than the one before is there, too."""

            def detect_all(self, image):
                faces = super().detect_all(image)
                self.cut = getattr(self, "cut", False) or not faces
                return [faces[0].moved(np.array([[2, 0, 500.0], [0, 2, 0]])), *faces] if self.cut and faces else faces

        motion = read_motion(model, write_clip(tmp_path / "clip.mp4", [1, 1, None, 1]), Replaced())
        assert (motion.five[:, :, 0].min(1) > 400).tolist() == [False, False, True]

    def test_smoothing_stops_at_cuts(self, model, tmp_path):
        seeds = [1, 2] * 5 + [None] + [3, 4] * 5
        motion = read_motion(model, write_clip(tmp_path / "clip.mp4", seeds), BrightFaces())
        smooth = motion.smoothed(100.0)
        first, second = (motion.shots == shot for shot in np.unique(motion.shots))
        for rows in (first, second):
            before, after = motion.expression[rows], smooth.expression[rows]
            assert after.diff(dim=0).abs().mean() < 0.2 * before.diff(dim=0).abs().mean()
            assert_close(after.mean(0), before.mean(0), atol=1e-4, rtol=0)  # the sum above keeps the mean
        assert motion.smoothed(0.0) is motion
        with pytest.raises(ValueError, match="a strength from 0 to 1e\\+09, got -1"):
            motion.smoothed(-1)

    def test_refusals(self, model, tmp_path):
        with pytest.raises(InputError, match="no face found in any of the 3 frames of"):
            read_motion(model, write_clip(tmp_path / "clip.mp4", [None] * 3), BrightFaces())
        with pytest.raises(InputError, match="no face 2 found in any of the 2 frames of"):
            read_motion(model, write_clip(tmp_path / "clip.mp4", [1, 1]), BrightFaces(), face=2)
        with pytest.raises(InputError, match=r"^there is no video nowhere.mp4; check the path$"):
            read_motion(model, "nowhere.mp4", BrightFaces())
        with pytest.raises(InputError, match=r"is a folder; name one video in it$"):
            read_motion(model, tmp_path, BrightFaces())
        (tmp_path / "text.mp4").write_text("no video")
        with pytest.raises(InputError, match="cannot be read as a video"):
            read_motion(model, tmp_path / "text.mp4", BrightFaces())


class TestAnimate:
    def test_side_by_side(self, model, template, tmp_path):
        clip = write_clip(tmp_path / "clip.mp4", [None, 1, None, 2])
        result = animate(model, clip, template, tmp_path / "out.mp4", BrightFaces(), panel=64)
        assert (result.frames, result.faceless, result.cuts, result.broken) == (4, 2, 3, "")
        assert "4 frames, without sound" in result.lines()[0] and "hold the last expression" in result.lines()[2]
        frames = read(tmp_path / "out.mp4")
        assert len(frames) == 4 and frames[0].shape[1] == 3 * 68
        parts = [[frame[-68:-4, 68 * place : 68 * place + 64].astype(float) for place in range(3)] for frame in frames]
        assert np.abs(parts[0][1] - template.crop).mean() < 12  # before the first face: the photo
        assert np.abs(parts[1][1] - parts[2][1]).mean() < 3  # held
        assert np.abs(parts[3][0] - picture(2, 64)).mean() < 12  # the video itself

    def test_whole_photo(self, model, template, tmp_path):
        clip = write_clip(tmp_path / "clip.mkv", [1, 2, 3])
        animate(model, clip, template, tmp_path / "out.gif", BrightFaces(), whole=True, pose=True, smooth=1.0, limit=2)
        frames = read_gif(tmp_path / "out.gif")
        assert [frame.shape for frame in frames] == [(120, 120, 3)] * 2

    def test_from_refined_codes(self, model, template, tmp_path, monkeypatch):
        from facemodels import video

        pasted = []
        monkeypatch.setattr(video, "paste", lambda photo, edit, own: pasted.append((edit, own)) or photo.photo)
        own = refine(model, to_tensor(template.crop), steps=3)
        clip = write_clip(tmp_path / "clip.mp4", [1])
        animate(model, clip, template, tmp_path / "out.gif", BrightFaces(), whole=True, own=own)
        ((edit, unedited),) = pasted
        assert torch.equal(edit.codes.identity, own.identity) and torch.equal(unedited.codes.identity, own.identity)
        assert not torch.equal(edit.codes.expression, own.expression)

    def test_the_expression_is_the_frames(self, model, template, tmp_path, monkeypatch):
        """What is pasted is what `transfer` makes of the template and the frame."""
        from facemodels import video

        pasted = []
        monkeypatch.setattr(video, "paste", lambda photo, edit, own: pasted.append(edit.image) or photo.photo)
        clip = write_clip(tmp_path / "clip.mp4", [1, 2])
        animate(model, clip, template, tmp_path / "out.gif", BrightFaces(), whole=True)
        for edited, frame in zip(pasted, read(clip), strict=True):
            crop = to_tensor(load_photo(_png(frame), BrightFaces()).crop)
            assert_close(edited, transfer(model, to_tensor(template.crop), crop, "expression").image)

    def test_a_video_that_breaks_off(self, model, template, tmp_path, monkeypatch):
        from facemodels.data import video

        clip = write_clip(tmp_path / "clip.mp4", [1, 2, 3])
        photos = video.Video.photos

        def broken(self):
            yield from list(photos(self))[:2]
            yield video.Photo.lost("clip.mp4", "clip.mp4 breaks off after 2 frames (x); only those before are used")

        monkeypatch.setattr(video.Video, "photos", broken)
        result = animate(model, clip, template, tmp_path / "out.mp4", BrightFaces(), panel=32)
        assert result.frames == 2 and "breaks off after 2 frames" in result.lines()[-1]
        assert len(list(photos(Video(str(tmp_path / "out.mp4"))))) == 2

    @pytest.mark.parametrize("suffix", [".mkv", ".webm"])
    @pytest.mark.slow
    def test_a_file_that_was_cut(self, model, template, tmp_path, suffix):
        """FFmpeg itself takes its end for that of the video."""
        rng = np.random.default_rng(0)
        whole, cut = (tmp_path / f"{name}{suffix}" for name in ("whole", "cut"))
        write_movie(whole, (rng.integers(90, 255, (96, 96, 3)).astype(np.uint8) for _ in range(60)), 10)
        cut.write_bytes(whole.read_bytes()[: int(0.6 * whole.stat().st_size)])
        results = [
            animate(model, clip, template, tmp_path / "out.gif", BrightFaces(), panel=32) for clip in (whole, cut)
        ]
        assert (results[0].frames, results[0].broken) == (60, "") and 10 < results[1].frames < 50
        expected = rf"cut{suffix} breaks off after {results[1].frames} frames \(\d\.\d of 6\.0 seconds are missing\)"
        assert re.search(expected, results[1].broken)

    def test_nothing_is_left_of_what_was_interrupted(self, model, template, tmp_path, monkeypatch):
        from facemodels import video

        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(video, "paste", interrupted)
        clip = write_clip(tmp_path / "clip.mp4", [1, 2])
        with pytest.raises(KeyboardInterrupt):
            animate(model, clip, template, tmp_path / "out.mp4", BrightFaces())
        assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "template.png"]


def read_gif(path):
    from PIL import Image, ImageSequence

    with Image.open(path) as film:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]


def _png(frame):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()
