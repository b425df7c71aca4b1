import numpy as np
import pytest
from PIL import Image

from facemodels.data.video import Video
from facemodels.errors import InputError
from facemodels.movies import write_movie


def frames(count=5, height=31, width=44):
    return [np.full((height, width, 3), 40 * number, np.uint8) for number in range(count)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_videos_come_back(tmp_path, suffix):
    path = tmp_path / f"film{suffix}"
    assert write_movie(path, iter(frames()), 12.5) == 5
    clip = Video(str(path))
    read = [photo.read() for photo in clip.photos()]
    assert [picture.shape for picture in read] == [(32, 44, 3)] * 5  # a white row for the codec
    assert all(abs(picture[:30].mean() - 40 * number) < 8 for number, picture in enumerate(read))
    assert float(clip.rate()) == pytest.approx(12.5, rel=0.01)


def test_gif(tmp_path):
    write_movie(tmp_path / "film.gif", frames(), 10)
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"], film.info["loop"]) == (5, (44, 31), 100, 0)


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    def broken():
        yield from 40 * frames(3)  # more than the codec keeps to itself
        raise KeyboardInterrupt

    for name in ("film.mp4", "film.gif"):
        (tmp_path / name).write_text("before")
        with pytest.raises(KeyboardInterrupt):
            write_movie(tmp_path / name, broken(), 10)
        assert (tmp_path / name).read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2


def test_refusals(tmp_path):
    with pytest.raises(InputError, match=r"film.txt is no name for a moving picture; end it in .gif, .m4v"):
        write_movie(tmp_path / "film.txt", frames(), 10)
    with pytest.raises(InputError, match="does not exist; make it first"):
        write_movie(tmp_path / "no" / "film.mp4", frames(), 10)
    with pytest.raises(ValueError, match="there is no frame to write"):
        write_movie(tmp_path / "film.mp4", [], 10)
    with pytest.raises(InputError, match="more than 600 frames is too large"):
        write_movie(tmp_path / "film.gif", (frame for _ in range(601) for frame in frames(1, 2, 2)), 10)
    assert not list(tmp_path.iterdir())
