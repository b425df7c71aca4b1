from drawn_faces import BrightFaces, write_photo

from facemodels.data.alignment import AlignedPhoto
from facemodels.data.loading import Failure, load_photos


def test_photos_and_folders_in_order(tmp_path):
    (tmp_path / "more" / "inside").mkdir(parents=True)
    write_photo(tmp_path / "z.png", 0)
    write_photo(tmp_path / "more" / "b.png", 1)
    write_photo(tmp_path / "more" / "inside" / "c.png", 2)
    (tmp_path / "more" / "a.png").write_text("no picture")
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / name for name in ("z.png", "more", "nowhere.png", "empty")]
    read = list(load_photos(paths, BrightFaces(), size=32))
    names = [str(tmp_path / name) for name in ("z.png", "more/a.png", "more/b.png", "more/inside/c.png")]
    assert [one.name for one in read] == [*names, str(tmp_path / "nowhere.png"), str(tmp_path / "empty")]
    assert [isinstance(one, Failure) for one in read] == [False, True, False, False, True, True]
    assert all(one.crop.shape == (32, 32, 3) for one in read if isinstance(one, AlignedPhoto))
    reasons = [one.reason for one in read if isinstance(one, Failure)]
    assert "a.png is no image" in reasons[0] and "there is no photo" in reasons[1] and "no photos in" in reasons[2]


def test_another_face_of_each(tmp_path):
    write_photo(tmp_path / "two.png", 0, blue=250)
    write_photo(tmp_path / "one.png", 0)
    one, two = load_photos([tmp_path / "one.png", tmp_path / "two.png"], BrightFaces(), face=2)
    assert isinstance(one, Failure) and "one.png has no face 2; faces found in it: 1" in one.reason
    assert isinstance(two, AlignedPhoto) and two.landmarks.faces == 2
    assert abs(two.transform[0, 0] - 2 * 64 / 96) < 1e-3  # the smaller one is half as large
