"""The HTML page: its content, without network access; in a browser it sorts, and runs no script in a name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_tables import HOSTILE, made

from hblm.tables.output.html import page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDED = os.environ.get("HBLM_REQUIRE_CHROMIUM") == "1"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


class Elements(HTMLParser):
    """All elements, with their attributes, and the text outside of script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        self.text += data if self.inside not in ("script", "style") else ""


def test_every_number_is_traced_to_its_runs() -> None:
    elements = Elements(page(made(), {}))
    cells = [attrs for tag, attrs in elements.elements if tag == "td" and attrs.get("title")]
    first = cells[0]
    assert "interval of the mean 60.00 to 80.00" in first["title"]
    assert "seed 1: 70.00 run flat1flat1fl" in first["title"]
    ids = {attrs["id"] for _, attrs in elements.elements if "id" in attrs}
    links = {attrs["href"] for tag, attrs in elements.elements if tag == "a"}
    assert links
    assert {link.removeprefix("#") for link in links} <= ids, "a link that leads nowhere"
    assert "flat1" * 8 in elements.text, "the whole id, in the foot table"
    assert "cccccccccc+" in elements.text, "the commit, with uncommitted changes"
    assert [attrs["title"] for tag, attrs in elements.elements if attrs.get("class") == "number hole"] == [
        "no result"
    ]


def test_reference_figures_have_a_body_of_their_own() -> None:
    text = page(made(), {})
    ours, theirs = text.split('<tbody class="references">')
    assert "HPT" not in ours
    assert "81.93" in theirs
    assert "Reference figures" in theirs


def test_standings_notes_tests_and_figures_are_there() -> None:
    text = page(made(), {"a figure": SVG})
    assert "<strong>81.00 ± 1.41</strong>" in text
    assert "<u>71.00 ± 1.41</u>" in text
    assert "<sup>a</sup> Seeds of flat are missing." in text
    assert "p = 0.0625, the smallest that 5 seeds can give" in text
    assert 'alt="a figure" src="data:image/svg+xml;base64,' in text
    assert "flat explained" in text


def test_nothing_is_fetched() -> None:
    elements = Elements(page(made(), {"a figure": SVG}))
    for tag, attrs in elements.elements:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href", "action"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/svg+xml;base64,"))


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_html(name: str) -> None:
    plain, hostile = Elements(page(made(), {})), Elements(page(made((name, "dual")), {name: SVG}))
    shape = [tag for tag, _ in plain.elements]
    assert [tag for tag, _ in hostile.elements if tag not in ("figure", "img", "figcaption")] == shape
    assert not [name for _, attrs in hostile.elements for name in attrs if name.startswith("on")]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", page(made((name, "dual")), {}))


def test_the_same_table_is_the_same_page() -> None:
    assert page(made(), {"a": SVG}) == page(made(), {"a": SVG})


@pytest.fixture
def dom(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that opens a page in a browser and returns what it made of it."""
    if BROWSER is None:
        assert not NEEDED, "no Chromium, although HBLM_REQUIRE_CHROMIUM=1"
        pytest.skip("no Chromium")
    flags = (
        "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
        "disable-component-update disable-sync virtual-time-budget=2000 enable-logging=stderr dump-dom"
    )

    def opened(text: str) -> str:
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [
                *(BROWSER, *(f"--{flag}" for flag in flags.split())),
                *(f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Uncaught" not in done.stderr
        assert "Refused to" not in done.stderr
        assert 'data-ready="true"' in done.stdout, "the page's script did not run to its end"
        return done.stdout

    return opened


def clicking(text: str, column: int, times: int) -> str:
    """Return the page with a script that clicks a header of the first table."""
    click = f"document.querySelectorAll('#results th button')[{column}].click();" * times
    return text.replace("</body>", f"<script>{click}</script></body>")


def order(dumped: str) -> list[str]:
    body = dumped[dumped.index("<tbody>") : dumped.index("</tbody>")]
    return re.findall(r'<th scope="row"[^>]*>([^<]*)</th>', body)


@pytest.mark.slow
def test_a_browser_sorts_and_keeps_holes_last(dom: Callable[[str], str]) -> None:
    text = page(made(("b10", "b9", "a")), {"a figure": SVG})
    assert order(dom(text)) == ["b10", "b9", "a"]
    names = dom(clicking(text, 0, 1))
    assert order(names) == ["a", "b9", "b10"]
    assert 'aria-sort="ascending"' in names
    falling = dom(clicking(text, 1, 2))
    assert order(falling) == ["a", "b9", "b10"]
    assert 'aria-sort="descending"' in falling
    for times in (1, 2):  # the last row has no result there
        assert order(dom(clicking(text, 2, times)))[-1] == "a"
    assert names.index('class="references"') > names.index("b10"), "references stay below"


@pytest.mark.slow
def test_a_browser_runs_no_name(dom: Callable[[str], str]) -> None:
    dumped = dom(page(made((" ".join(HOSTILE), "dual")), {}))
    assert re.search(r"<title>Results of &lt;script", dumped)
    assert dumped.count("<script>") == 1
    assert "<img" not in dumped
