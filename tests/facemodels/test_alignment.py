import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from facemodels.data import alignment
from facemodels.data.alignment import (
    TEMPLATE,
    align,
    apply_transform,
    invert,
    load_photo,
    read_image,
    resample,
    similarity,
)
from facemodels.errors import InputError
from facemodels.fitting.landmarks import Landmarks


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def gradient(width=48, height=32):
    """An image whose red is x, whose green is y, in steps of 4."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = 4 * np.arange(width)
    image[..., 1] = 4 * np.arange(height)[:, None]
    return image


def display_p3():
    """The profile of telephones' photos, written from the format's definition (ICC.1:2001-04)."""

    def fixed(*values):
        return struct.pack(f">{len(values)}i", *(round(65536 * value) for value in values))

    curve = b"para" + struct.pack(">4xHH", 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    primaries = {"r": (0.51512, 0.2412, -0.00105), "g": (0.29198, 0.69225, 0.04189), "b": (0.1571, 0.06657, 0.78407)}
    tags = {"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    for colour, place in primaries.items():
        tags |= {f"{colour}XYZ": b"XYZ \0\0\0\0" + fixed(*place), f"{colour}TRC": curve}
    table, content = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name.encode() + struct.pack(">II", 132 + 12 * len(tags) + len(content), len(value))
        content += value
    kind = b"mntrRGB XYZ " + struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp"
    header = struct.pack(">I4sI", 128 + len(table + content), b"lcms", 0x02400000) + kind
    return header.ljust(68, b"\0") + fixed(0.9642, 1, 0.8249).ljust(60, b"\0") + table + content


class TestSimilarity:
    @given(st.floats(-3, 3), st.floats(0.1, 30), st.floats(-500, 500), st.floats(-500, 500))
    def test_recovers_a_similarity(self, angle, scale, x, y):
        rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        moved = TEMPLATE @ rotation.T + [x, y]
        found = similarity(TEMPLATE, moved)
        np.testing.assert_allclose(found, np.c_[rotation, [x, y]], atol=1e-6)
        np.testing.assert_allclose(apply_transform(invert(found), moved), TEMPLATE, atol=1e-6)

    def test_never_mirrors(self):
        found = similarity(TEMPLATE, TEMPLATE * [-1, 1])
        assert np.linalg.det(found[:, :2]) > 0

    def test_rejects_coinciding_points(self):
        with pytest.raises(ValueError, match=r"the points coincide"):
            similarity(np.ones((5, 2)), TEMPLATE)


class TestAlign:
    def test_in_place_the_crop_is_a_cut(self):
        image = np.random.default_rng(0).integers(0, 256, (90, 100, 3)).astype(np.uint8)
        smooth = np.asarray(Image.fromarray(image).resize((10, 9)).resize((100, 90), Image.Resampling.BICUBIC))
        crop, transform = align(smooth, TEMPLATE + np.array([12, 20]))
        np.testing.assert_allclose(transform, [[1, 0, -12], [0, 1, -20]], atol=1e-9)
        np.testing.assert_allclose(crop.astype(int), smooth[20:84, 12:76].astype(int), atol=3)

    @pytest.mark.parametrize("scale", [0.5, 1.0, 3.3, 9.0])
    @pytest.mark.parametrize("angle", [0.0, 0.4, np.pi])
    def test_points_land_on_the_template(self, scale, angle):
        """Five blobs painted into a photo come out at the template."""
        rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        five = (TEMPLATE - 32) @ rotation.T + 45 * scale
        side = int(90 * scale)
        y, x = np.mgrid[:side, :side] + 0.5
        for number, point in enumerate(five):
            blob = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (2 * scale) ** 2))
            crop, transform = align(np.repeat((255 * blob).astype(np.uint8)[..., None], 3, 2), five)
            weight = crop[..., 0].astype(float)
            rows, columns = np.mgrid[:64, :64] + 0.5
            centre = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
            np.testing.assert_allclose(centre, TEMPLATE[number], atol=0.15)
            np.testing.assert_allclose(apply_transform(transform, five), TEMPLATE, atol=1e-6)

    def test_larger_crops_show_the_same(self):
        photo = np.kron(np.random.default_rng(0).integers(256, size=(30, 30, 3)), np.ones((10, 10, 1))).astype(np.uint8)
        five = TEMPLATE * 2.6 + 40
        (small, transform), (large, same) = align(photo, five), align(photo, five, 128)
        assert (same == transform).all()
        assert small.shape == (64, 64, 3) and large.shape == (128, 128, 3)
        halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(halved - small).mean() < 6  # the filters differ at sharp edges
        assert np.abs(halved[1:] - small[:-1]).mean() > 15
        assert np.abs(halved.repeat(2, axis=0).repeat(2, axis=1) - large).mean() > 4  # and detail of its own

    def test_no_aliasing(self):
        """A fine chequerboard becomes even grey, not stripes."""
        board = np.indices((600, 600)).sum(0) % 2 * 255
        crop, _ = align(np.repeat(board[..., None], 3, 2).astype(np.uint8), TEMPLATE * 8.7 + 10)
        assert crop.std() < 3
        assert abs(crop.mean() - 127.5) < 3

    def test_border_is_repeated(self):
        image = np.zeros((40, 40, 3), np.uint8)
        image[:, :20], image[:, 20:] = (200, 0, 0), (0, 0, 200)
        crop, _ = align(image, TEMPLATE - 12)
        np.testing.assert_array_equal(crop[:, :25], np.broadcast_to([200, 0, 0], (64, 25, 3)))
        np.testing.assert_array_equal(crop[:, 40:], np.broadcast_to([0, 0, 200], (64, 24, 3)))

    @pytest.mark.parametrize("offset", [-500, 500])
    def test_face_outside_the_photo(self, offset):
        crop, _ = align(gradient(), TEMPLATE + offset)
        assert (crop == crop[0, 0]).all()

    def test_resample_back_into_the_photo(self):
        image = np.asarray(Image.fromarray(gradient()).resize((100, 100), Image.Resampling.BICUBIC))
        crop, transform = align(image, TEMPLATE * 0.9 + 20)
        back = resample(crop, transform, (100, 100))
        inside = np.s_[35:65, 35:65]
        np.testing.assert_allclose(back[inside].astype(int), image[inside].astype(int), atol=4)


class TestReadImage:
    def test_rgb(self):
        np.testing.assert_array_equal(read_image(encoded(Image.fromarray(gradient()))), gradient())

    def test_path(self, tmp_path):
        Image.fromarray(gradient()).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_image(tmp_path / "x.png"), gradient())

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation(self, orientation):
        picture = Image.fromarray(gradient())
        stored = {
            1: picture,
            2: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            3: picture.transpose(Image.Transpose.ROTATE_180),
            4: picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
            5: picture.transpose(Image.Transpose.TRANSPOSE),
            6: picture.transpose(Image.Transpose.ROTATE_90),
            7: picture.transpose(Image.Transpose.TRANSVERSE),
            8: picture.transpose(Image.Transpose.ROTATE_270),
        }[orientation]
        exif = Image.Exif()
        exif[274] = orientation
        np.testing.assert_array_equal(read_image(encoded(stored, exif=exif)), gradient())

    @pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "I;16", "I", "F"])
    def test_every_mode_becomes_rgb(self, mode):
        grey = np.tile(np.linspace(0, 255, 32).round().astype(np.uint8), (32, 1))
        if mode == "I;16":
            picture, kind = Image.fromarray(grey.astype(np.uint16) * 257), "PNG"
        elif mode == "I":
            picture, kind = Image.fromarray(grey.astype(np.int32) * 257), "TIFF"
        elif mode == "F":
            picture, kind = Image.fromarray(grey.astype(np.float32) / 255), "TIFF"
        elif mode == "P":
            picture, kind = Image.fromarray(grey).convert("P"), "PNG"
        else:
            picture, kind = Image.fromarray(grey).convert("RGB").convert(mode), "TIFF" if mode == "CMYK" else "PNG"
        read = read_image(encoded(picture, kind))
        assert read.shape == (32, 32, 3) and read.dtype == np.uint8
        if mode != "1":
            np.testing.assert_allclose(read.astype(int), np.repeat(grey[..., None], 3, 2).astype(int), atol=8)

    def test_transparent_parts_become_white(self):
        picture = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
        assert (read_image(encoded(picture)) == 255).all()

    @pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 100, "subsampling": 0})])
    def test_colours_of_a_wider_profile_come_into_srgb(self, kind, options):
        seen = Image.fromarray(np.kron(gradient(), np.ones((4, 4, 1))).astype(np.uint8))
        srgb, wide = ImageCms.createProfile("sRGB"), display_p3()
        stored = ImageCms.buildTransform(srgb, ImageCms.ImageCmsProfile(io.BytesIO(wide)), "RGB", "RGB").apply(seen)
        read = read_image(encoded(stored, kind, icc_profile=wide, **options)).astype(int)
        assert np.abs(read - np.asarray(seen)).mean() < 2 < 10 < np.abs(np.asarray(stored, int) - seen).max()
        stored.putalpha(Image.new("L", stored.size, 0))
        stored.paste(stored.convert("RGB"), (96, 0))
        half = read_image(encoded(stored, icc_profile=wide))
        assert (half[:, :96] == 255).all() and np.abs(half[:, 96:].astype(int) - np.asarray(seen)[:, :96]).mean() < 2

    def test_colours_stay_as_they_are_with_srgb_or_a_profile_that_does_not_fit(self):
        picture = Image.fromarray(gradient())
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        for profile in (srgb, b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
            np.testing.assert_array_equal(read_image(encoded(picture, icc_profile=profile)), gradient())
        grey = read_image(encoded(picture.convert("L"), icc_profile=display_p3()))
        np.testing.assert_array_equal(grey, picture.convert("L").convert("RGB"))

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"this is text",
            encoded(Image.fromarray(gradient()), "JPEG")[:400],
            encoded(Image.fromarray(gradient()))[:90],
        ],
        ids=["zero bytes", "text", "truncated jpeg", "truncated png"],
    )
    def test_rejects_what_is_no_image(self, content):
        with pytest.raises(InputError, match=r"^holiday.jpg is no image or is damaged"):
            read_image(content, "holiday.jpg")

    def test_rejects_a_missing_file(self):
        with pytest.raises(InputError, match=r"there is no photo /no/such.jpg"):
            read_image("/no/such.jpg")

    def test_rejects_a_folder(self, tmp_path):
        with pytest.raises(InputError, match=r"is a folder; name one photo in it$"):
            read_image(tmp_path)

    def test_rejects_tiny_photos(self):
        with pytest.raises(InputError, match=r"dot.png is 1x1 pixels, too small"):
            read_image(encoded(Image.new("RGB", (1, 1))), "dot.png")

    def test_rejects_huge_photos(self, monkeypatch):
        monkeypatch.setattr(alignment, "MAX_PIXELS", 1000)
        with pytest.raises(InputError, match=r"wall.png is 48x32 pixels, more than"):
            read_image(encoded(Image.fromarray(gradient())), "wall.png")

    def test_rejects_decompression_bombs(self):
        bomb = encoded(Image.new("1", (20000, 20000)))
        with pytest.raises(InputError, match=r"bomb.png (has too many|is 20000x20000) pixels"):
            read_image(bomb, "bomb.png")


class TestLoadPhoto:
    def test_landmarks_are_in_the_crop(self):
        class Detector:
            def detect(self, image):
                points = np.zeros((478, 3), np.float32)
                points[[33, 133]] = [*(2 * TEMPLATE[0] + 7), 0]
                points[[362, 263]] = [*(2 * TEMPLATE[1] + 7), 0]
                points[[4, 61, 291], :2] = 2 * TEMPLATE[2:] + 7
                return Landmarks.from_points(points)

        photo = load_photo(encoded(Image.fromarray(gradient(60, 60))), Detector(), "x.png")
        np.testing.assert_allclose(photo.landmarks.five, TEMPLATE, atol=1e-4)
        np.testing.assert_allclose(photo.transform, [[0.5, 0, -3.5], [0, 0.5, -3.5]], atol=1e-6)
        assert photo.crop.shape == (64, 64, 3) and photo.photo.shape == (60, 60, 3)

    def test_no_face(self):
        class Blind:
            def detect(self, image):
                return None

        with pytest.raises(InputError, match=r"no face found in wall.png; try a larger or more frontal photo"):
            load_photo(encoded(Image.fromarray(gradient())), Blind(), "wall.png")
