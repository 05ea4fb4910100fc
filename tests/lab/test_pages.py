"""Pages on a telephone and on paper, and their links."""

import base64
import html.parser
import io
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lab import Entry, Experiment, Recipe
from npopt import SGD, Stop
from problems import Quadratic

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def bowl():
    return Quadratic([1.0, 2.0])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder of an index over one report with three verdicts, a picture and an animation."""
    made = Experiment("Does the bowl hold water?   And more.", task="T1", source="a paper", seeds=1)

    @made.runs
    def runs(args):
        yield Entry("a", Recipe(bowl), SGD(), None, 0.1, method="a method with a rather long name", stop=Stop(steps=3))

    def claimed(verdict):
        made.claim(f"claim-{verdict}", f"it is {verdict} " * 6, expected="a number " * 4)(
            lambda results: (1.5, verdict)
        )

    for verdict in (True, False, None):
        claimed(verdict)

    @made.figure("moves.gif", caption="It moves.")
    def moves(results):
        from lab.figures import panels

        for end in range(1, 4):
            figure, ax = panels()
            ax.plot(range(end + 1))
            yield figure

    @made.figure("stands.png", caption="It stands.")
    def stands(results):
        from lab.figures import panels

        return panels()[0]

    out = tmp_path_factory.mktemp("pages")
    made.main(["--out", str(out)], "bowl")
    return out


class Reader(html.parser.HTMLParser):
    """The addresses of a page, and the attributes of its pictures."""

    def __init__(self, path):
        super().__init__()
        self.addresses, self.pictures = [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[name] for name in ("href", "src") if found.get(name)]
        self.pictures += [found] if tag == "img" else []


def broken(folder):
    """(page, address) of every relative link in a folder that leads nowhere."""
    found = []
    for page in sorted(folder.rglob("*.html")):
        for address in Reader(page).addresses:
            parts = urlsplit(address)
            if not parts.scheme and parts.path and not (page.parent / unquote(parts.path)).exists():
                found.append((str(page.relative_to(folder)), address))
    return found


def test_links_lead_somewhere(pages):
    assert not broken(pages)
    assert "../index.html" in Reader(pages / "bowl/report.html").addresses
    assert Reader(pages / "index.html").addresses == ["bowl/report.html"]
    (pages / "wrong.html").write_text('<a href="nowhere.html">x</a> <a href="#there">y</a>')
    assert broken(pages) == [("wrong.html", "nowhere.html")]
    (pages / "wrong.html").unlink()


def test_links_of_the_committed_pages_lead_somewhere():
    assert not broken(RESULTS)
    listed = {unquote(address).split("/")[0] for address in Reader(RESULTS / "index.html").addresses}
    wanted = {path.parent.name for path in RESULTS.glob("*/summary.json")}
    assert listed == wanted, "write it again: from lab.report import write_index; write_index('docs/results')"


def test_verdicts_of_the_committed_pages_are_on_cards():
    for page in RESULTS.rglob("*.html"):
        text = page.read_text()
        assert "@media (max-width: 40rem) {" in text and '<table class="cards">' in text, page
        table = text.split('<table class="cards">')[1].split("</table>")[0]
        assert table.count("<tr>") - 1 == table.count('class="first"') + table.count('class="w first"'), page


def test_an_animation_prints_as_its_last_frame(pages):
    moving, last, still = Reader(pages / "bowl/report.html").pictures
    assert moving["class"] == "moving" and moving["src"].startswith("data:image/gif") and "class" not in still
    assert last["class"] == "last" and moving["width"] == last["width"]
    printed = Image.open(io.BytesIO(base64.b64decode(last["src"].split(",")[1])))
    with Image.open(pages / "bowl/moves.gif") as animation:
        animation.seek(animation.n_frames - 1)
        np.testing.assert_array_equal(np.asarray(printed.convert("RGB")), np.asarray(animation.convert("RGB")))
        assert printed.format == "PNG" and animation.n_frames == 3
    style, printing = (pages / "bowl/report.html").read_text().split("@media print")[:2]
    assert "img.last { display: none; }" in style
    assert "img.moving { display: none; }" in printing and "img.last { display: block; }" in printing


MEASURE = """<script>
const seen = [...document.querySelectorAll(".mark")].filter(mark => {
  const box = mark.getBoundingClientRect();
  return box.width > 20 && box.left >= 0 && box.right <= document.documentElement.clientWidth;
});
const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
parent.postMessage(`${innerWidth} wide, ${seen.length} marks seen, ${wide ? "to be scrolled" : "fits"}`, "*");
</script>"""
FRAME = """<!doctype html><title></title>
<script>addEventListener("message", event => { document.title = event.data; });</script>
<iframe src="page.html" width="390" height="2000" style="border: 0"></iframe>"""  # a window is at least 500 wide


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("page", ["index.html", "bowl/report.html"])
def test_verdicts_are_seen_on_a_telephone(pages, page, tmp_path):
    (tmp_path / "page.html").write_text((pages / page).read_text().replace("</body>", MEASURE + "</body>"))
    (tmp_path / "frame.html").write_text(FRAME)
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path}/u",
    ]
    words += ["--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run([BROWSER, *words], capture_output=True, text=True, timeout=120)
    assert re.search("<title>(.*)</title>", done.stdout)[1] == "390 wide, 3 marks seen, fits"


def test_narrow_pages_name_their_numbers(pages):
    """Without a browser: the tables with verdicts are cards, and each of their cells has a name."""
    for page in ("index.html", "bowl/report.html"):
        text = (pages / page).read_text()
        (table,) = re.findall(r'<table class="cards">.*?</table>', text, re.S)
        cells = re.findall(r"<td([^>]*)>(.*?)</td>", table, re.S)
        assert len(cells) in (6, 12)
        for attributes, inside in cells:
            assert "data-label" in attributes or "first" in attributes or "<b>claim-" in inside
        assert "@media (max-width: 40rem)" in text
