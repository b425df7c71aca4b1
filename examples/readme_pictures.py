"""Take the README's pictures of the report and of the page with sliders: `python examples/readme_pictures.py`.

    --report DIRECTORY   a report that `facemodels report` has written; without one it is made first, in `report`
    --model MODEL        the network on the page; by default the one of the package
    --out DIRECTORY      where to put report.jpg and app.jpg; by default docs

Needs the extras `app` and `dev`, and Chromium or Chrome. Only rendered faces and a public-domain portrait are shown.
"""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from facemodels.app import serve
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.evaluation.page import PAGE, report
from facemodels.files import whole_file

DOCS = Path(__file__).parent.parent / "docs"
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE = 300_000  # milliseconds
SHOWN = ("#expression figure", "#pose figure", "#maps figure")
"""Parts of the report that are shown, one below the other."""
QUALITY = 88  # of a JPEG, which keeps the colours that a small PNG would not
GAP = 12  # pixels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--model", default="facefactors")
    parser.add_argument("--out", type=Path, default=DOCS)
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("readme_pictures: there is no Chromium and no Chrome; `apt install chromium`", file=sys.stderr)
        return 2
    model = NeuroTensorialAutoencoder.from_pretrained(options.model)
    made = options.report / PAGE if options.report else report(model, Path("report"), name=Path(options.model).name)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        page = chromium.new_page(viewport={"width": 1120, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.goto(made.resolve().as_uri())
        save(below_each_other([shot(page, name) for name in SHOWN]), options.out / "report.jpg")
        page.set_viewport_size({"width": 1280, "height": 1180})
        with serve(model) as address:
            save(the_app(page, address), options.out / "app.jpg")
        chromium.close()
    return 0


def the_app(page: Page, address: str) -> Image.Image:
    """The page after a person has moved a few sliders."""
    page.goto(address)
    page.wait_for_selector("#edited img")
    page.wait_for_selector("#mesh-link a")
    for name in ("take-expression", "take-light"):
        before = page.locator("#edited img").last.get_attribute("src")
        page.locator(f"#{name} input[type=range]").press("End")
        page.wait_for_function("old => [...document.querySelectorAll('#edited img')].at(-1)?.src !== old", arg=before)
    page.wait_for_timeout(15_000)  # the mesh is loaded and drawn
    return Image.open(io.BytesIO(page.screenshot()))


def shot(page: Page, selector: str) -> Image.Image:
    """A part of a page."""
    return Image.open(io.BytesIO(page.locator(selector).first.screenshot()))


def below_each_other(pictures: list[Image.Image]) -> Image.Image:
    """Pictures in a column on white."""
    size = max(one.width for one in pictures) + 2 * GAP, sum(one.height + GAP for one in pictures) + GAP
    sheet, top = Image.new("RGB", size, "white"), GAP
    for one in pictures:
        sheet.paste(one.convert("RGB"), (GAP, top))
        top += one.height + GAP
    return sheet


def save(picture: Image.Image, path: Path) -> None:
    """Write a small file."""
    with whole_file(path) as partial:
        picture.convert("RGB").save(partial, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    print(f"wrote {path}: {picture.width} x {picture.height} pixels, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
