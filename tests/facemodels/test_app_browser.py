"""The page in a browser, as a person uses it: click, slide, upload, save; everything on this machine."""

import io
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig
from facemodels.morphable import MorphableModel

PATIENCE = 600  # seconds: browsers are slow on a busy machine
# Without a GPU WebGL is drawn in software; the rest keeps the browser from looking for its maker's servers.
FLAGS = (
    "--no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --ignore-gpu-blocklist"
    " --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
).split()


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.photos,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium: `apt install chromium`, or Chrome"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of the page of an untrained network, its process, and where it puts files."""
    for package in ("gradio", "playwright", "mediapipe"):
        pytest.importorskip(package, reason="needs the extras `app` and `dev`")
    folder = tmp_path_factory.mktemp("app")
    config = NetworkConfig(channels=(6, 5, 4), frontal_rank=2, shape_space="coordinates", face_mask=True)
    torch.manual_seed(0)
    network = NeuroTensorialAutoencoder(config, MorphableModel.procedural())
    for head in network.heads.values():
        head.weight.data *= 10  # untrained codes of two faces differ by less than a picture shows
    network.save_pretrained(folder / "model")
    files = folder / "files"
    files.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "facemodels", "app", "--no-open", "--model", str(folder / "model")],
        env={**os.environ, "TMPDIR": str(files)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    found = next(filter(None, (re.search(r"http://\S+", line) for line in lines)), None)
    assert found, process.stderr and process.stderr.read()
    yield found[0], process, files
    if process.poll() is None:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def page(served):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1100}, accept_downloads=True)
        page.set_default_timeout(1000 * PATIENCE)
        page.asked = []  # type: ignore[attr-defined]
        page.on("request", lambda request: page.asked.append(request.url))  # type: ignore[attr-defined]
        page.goto(served[0])
        shown(page)
        yield page
        browser.close()


@pytest.fixture
def fresh_page(page):
    """The page as it is at first; meshes may lag behind what earlier tests asked for."""
    page.reload()
    shown(page)
    return page


def shown(page) -> None:
    page.wait_for_selector("#edited img")
    page.wait_for_selector("#mesh-link a")


def edited(page) -> str:
    return page.locator("#edited img").last.get_attribute("src")


def changed(page, before: str) -> str:
    page.wait_for_function("old => [...document.querySelectorAll('#edited img')].at(-1)?.src !== old", arg=before)
    return edited(page)


def slide(page, name: str, key: str = "End") -> None:
    slider = page.locator(f"#{name} input[type=range]")
    slider.focus()
    slider.press(key)


def test_only_this_machine_is_asked_and_answered(served, page):
    import psutil

    address, process, _ = served
    assert address.startswith("http://127.0.0.1:")
    assert {url for url in page.asked if not url.startswith((address, "data:", "blob:"))} == set()
    listening = {one.laddr.ip for one in psutil.Process(process.pid).net_connections() if one.status == "LISTEN"}
    assert listening == {"127.0.0.1"}


def test_no_event_waits_in_the_queue(page):
    """Its one stream may be closed under an event that has just begun, and the page stands still."""
    assert any("/run/" in url for url in page.asked)
    assert [url for url in page.asked if "/queue/" in url] == []


@pytest.mark.parametrize("name", ["take-expression", "take-pose", "take-light", "take-identity", "yaw", "pitch"])
def test_sliders_edit_the_face(page, name):
    before = edited(page)
    slide(page, name)
    after = changed(page, before)
    page.locator("#reset").click()
    assert changed(page, after) == before


def test_named_expressions_edit_the_face(page):
    page.locator("#movements button").first.click()
    before = edited(page)
    slider = page.locator("#named input[type=range]").first
    slider.focus()
    slider.press("End")
    after = changed(page, before)
    page.locator("#named .reset-button").first.click()  # the slider's own
    assert changed(page, after) == before


def test_the_mesh_follows_the_sliders(fresh_page):
    before = fresh_page.locator("#mesh-link a").get_attribute("href")
    slide(fresh_page, "take-identity")
    fresh_page.wait_for_function("old => document.querySelector('#mesh-link a').href !== old", arg=before)
    fresh_page.locator("#reset").click()
    fresh_page.wait_for_function("old => document.querySelector('#mesh-link a').href === old", arg=before)


def test_the_edited_face_is_shown_in_its_photo_and_saved(fresh_page):
    page = fresh_page
    crop = edited(page)
    page.locator("#view input").nth(1).click()
    changed(page, crop)
    with page.expect_download() as download:
        page.locator("#edited a").click()
    picture = Image.open(download.value.path())
    assert picture.size == (256, 256) and np.asarray(picture).std() > 20  # as large as the photo
    page.locator("#view input").nth(0).click()
    page.wait_for_function("old => [...document.querySelectorAll('#edited img')].at(-1)?.src === old", arg=crop)


def test_parts_are_shown(page):
    names = page.locator("#parts figcaption").all_inner_texts()
    assert names == ["face", "albedo", "normals", "shading", "mask", "background", "frontal", "frontal normals"]


def test_the_mesh_turns_and_is_saved(page):
    import trimesh

    canvas = page.locator("#mesh canvas")
    canvas.scroll_into_view_if_needed()

    def drawn(enough):
        """The canvas, once it is drawn as a test wants it."""
        for _ in range(PATIENCE):
            picture = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("L"), float)
            if enough(picture):
                return picture
            page.wait_for_timeout(1000)
        raise AssertionError("the mesh is not drawn as it should be")

    before = drawn(lambda picture: picture.std() > 5)
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y, steps=8)
    page.mouse.up()
    drawn(lambda picture: np.abs(picture - before).mean() > 1)
    with page.expect_download() as download:
        page.locator("#mesh-link a").click()
    assert download.value.suggested_filename == "face.glb"
    mesh = trimesh.load(download.value.path(), file_type="glb", force="mesh")
    assert len(mesh.vertices) >= 9375


def test_other_faces_and_bad_photos(page, tmp_path):
    before = edited(page)
    page.locator("#examples-a button").nth(2).click()
    other = changed(page, before)
    (tmp_path / "notes.jpg").write_text("no picture")
    page.locator("#photo-a [aria-label='Remove Image']").click()
    page.locator("#photo-a input[type=file]").set_input_files(tmp_path / "notes.jpg")
    page.locator("#note-a .bad").wait_for()
    assert page.locator("#note-a").inner_text().startswith("Notes.jpg is no image or is damaged")
    page.wait_for_function("() => !document.querySelector('#edited img')")
    page.locator("#examples-a button").nth(2).click()
    page.locator("#note-a .bad").wait_for(state="detached")
    page.locator("#edited img").last.wait_for()
    assert edited(page) == other
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "wall.png")
    page.locator("#photo-b [aria-label='Remove Image']").click()
    page.locator("#photo-b input[type=file]").set_input_files(tmp_path / "wall.png")
    page.locator("#note-b .bad").wait_for()
    assert page.locator("#note-b").inner_text() == "No face found in wall.png; try a larger or more frontal photo."
    assert edited(page) == other  # the face to edit is still there


def test_exchanged_photos_keep_their_pixels(fresh_page):
    page = fresh_page

    def photos():
        urls = [page.locator(f"#photo-{which} img").get_attribute("src") for which in "ab"]
        return urls, [np.asarray(Image.open(io.BytesIO(page.request.get(url).body())).convert("RGB")) for url in urls]

    urls, (mine, theirs) = photos()
    page.locator("#swap").click()
    for which, url in zip("ab", urls, strict=True):
        page.wait_for_function(f"old => document.querySelector('#photo-{which} img')?.src !== old", arg=url)
    _, (first, second) = photos()
    np.testing.assert_array_equal(first, theirs)
    np.testing.assert_array_equal(second, mine)


def test_nothing_is_kept(served, page):
    _, process, files = served
    assert list(files.glob("facemodels-app-*"))
    process.terminate()  # as Ctrl-C, which a shell's background processes are deaf to
    assert process.wait(PATIENCE) == 0
    assert list(files.glob("facemodels-app-*")) == []
