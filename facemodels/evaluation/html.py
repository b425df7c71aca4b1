"""A page of sections in one HTML file that needs no other: pictures are inside, and it prints as it looks."""

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.55 system-ui, sans-serif; color: #1d1d1f; background: #fff; max-width: 1080px; margin: 0 auto;
  padding: 1.5em 1.2em 4em }
h1 { font-size: 1.9em; line-height: 1.2; margin: 0.4em 0 0.2em } h2 { font-size: 1.35em; margin: 2.4em 0 0.3em;
  border-top: 1px solid #d8d8dc; padding-top: 0.9em } h3 { font-size: 1.02em; margin: 1.5em 0 0.3em }
p { max-width: 46em; margin: 0.5em 0 } a { color: #0b57a4; text-decoration: none }
a:hover { text-decoration: underline }
nav { columns: 2; column-gap: 3em; max-width: 52em; margin: 1.2em 0; font-size: 0.95em } nav a { display: block;
  break-inside: avoid; padding: 0.08em 0 } nav .missing { color: #8a8a90 }
table { border-collapse: collapse; margin: 0.8em 0; font-size: 0.94em } th, td { padding: 0.28em 1.3em 0.28em 0;
  text-align: left; vertical-align: top; border-bottom: 1px solid #e4e4e8 } th { font-weight: 600; color: #55555c;
  vertical-align: bottom } td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
th.n { text-align: right } .best { font-weight: 700 } .good { color: #14713a } .bad { color: #a8321f }
figure { margin: 0.9em 0 } figure img { max-width: 100%; height: auto; display: block } .wide { overflow-x: auto }
figcaption, .note, table caption { color: #55555c; font-size: 0.92em; max-width: 50em }
table caption { text-align: left;
  caption-side: bottom; padding-top: 0.4em }
.why { border-left: 4px solid #d9a400; background: #fff9e6; padding: 0.5em 0.9em; max-width: 46em }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt } h2 { break-after: avoid } figure, table, .why {
  break-inside: avoid } nav { columns: 2 } a { color: inherit } }
"""


@dataclass(frozen=True)
class Figure:
    """A picture with a caption.

    Attributes:
        picture: A drawing as SVG text, or pixels.
        caption: What is to be seen.
        title: Heading above, or empty.
    """

    picture: Image.Image | str
    caption: str = ""
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table; cells are text, numbers as they should be read.

    Attributes:
        head: Names of the columns.
        rows: Cells.
        caption: A remark below, or empty.
        title: Heading above, or empty.
        best: For a row, the column whose cell is set in bold; rows not named have none.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    title: str = ""
    best: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """What a section says.

    Attributes:
        text: Plain sentences; an empty line separates paragraphs, and what stands between backticks is code.
        parts: Figures and tables.
        numbers: All figures of the section, as JSON.
    """

    text: str
    parts: Sequence[Figure | Table] = ()
    numbers: Any = None


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its key among the figures, and its anchor.
        title: Its heading.
        content: What it says, or None.
        missing: Why it says nothing.
    """

    name: str
    title: str
    content: Content | None = None
    missing: str = ""


def page(title: str, introduction: str, sections: Sequence[Section], closing: str = "") -> str:
    """The whole page as HTML.

    Args:
        title: Its heading.
        introduction: Plain sentences below it.
        sections: In their order; all are in the table of contents.
        closing: How the page was made.

    Example:
        >>> text = page("Faces", "Ten of them.", [Section("one", "The first", missing="there is no photo")])
        >>> "<h1>Faces</h1>" in text and 'href="#one"' in text and "there is no photo" in text
        True
    """
    contents = "\n".join(
        f'<a href="#{section.name}"{" class=missing" if section.content is None else ""}>{_text(section.title)}</a>'
        for section in sections
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{_text(title)}</h1>",
            _paragraphs(introduction),
            f'<nav aria-label="Contents">{contents}</nav>',
            *map(_section, sections),
            f'<footer class="note">{_paragraphs(closing)}</footer>' if closing else "",
            "</body></html>\n",
        ]
    )


def _section(section: Section) -> str:
    lines = [f'<section id="{section.name}"><h2>{_text(section.title)}</h2>']
    if section.content is None:
        lines.append(f'<p class="why">Not made: {_text(section.missing)}.</p>')
    else:
        lines.append(_paragraphs(section.content.text))
        for part in section.content.parts:
            lines.append(_figure(part, section.title) if isinstance(part, Figure) else _table(part))
    return "\n".join([*lines, "</section>"])


def _figure(figure: Figure, section: str) -> str:
    title = f"<h3>{_text(figure.title)}</h3>" if figure.title else ""
    caption = f"<figcaption>{_prose(figure.caption)}</figcaption>" if figure.caption else ""
    described = _text(figure.title or figure.caption or section)
    if isinstance(figure.picture, str):
        content, kind, width = figure.picture.encode(), "svg+xml", ""
    else:
        file = io.BytesIO()
        figure.picture.save(file, "PNG")
        content, kind, width = file.getvalue(), "png", f' width="{figure.picture.width}"'
    data = base64.b64encode(content).decode()
    image = f'<img src="data:image/{kind};base64,{data}" alt="{described}"{width}>'
    return f'{title}<figure><div class="wide">{image}</div>{caption}</figure>'


def _table(table: Table) -> str:
    numeric = [
        any(row[column] for row in table.rows) and all(_is_number(row[column]) for row in table.rows)
        for column in range(len(table.head))
    ]

    def cell(tag: str, text: str, column: int, best: bool = False) -> str:
        classes = [name for name, wanted in (("n", numeric[column]), ("best", best)) if wanted]
        classes += [{"reached": "good", "missed": "bad"}[text]] if text in ("reached", "missed") else []
        attribute = f' class="{" ".join(classes)}"' if classes else ""
        return f"<{tag}{attribute}>{_text(text)}</{tag}>"

    title = f"<h3>{_text(table.title)}</h3>" if table.title else ""
    caption = f"<caption>{_prose(table.caption)}</caption>" if table.caption else ""
    head = "".join(cell("th", name, column) for column, name in enumerate(table.head))
    lines = [
        "<tr>" + "".join(cell("td", text, at, table.best.get(number) == at) for at, text in enumerate(row)) + "</tr>"
        for number, row in enumerate(table.rows)
    ]
    return f'{title}<div class="wide"><table>{caption}<tr>{head}</tr>\n{chr(10).join(lines)}</table></div>'


def _is_number(text: str) -> bool:
    """Whether a cell is set flush right: a number with or without unit, or a dash for none."""
    return text in ("", "–") or text[0] in "0123456789-−<>≤≥"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_prose(part)}</p>" for part in text.split("\n\n") if part)


def _prose(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", _text(text))


def _text(text: str) -> str:
    return html.escape(text)
