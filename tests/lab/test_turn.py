"""Surfaces that a reader turns: what the page holds, and what a browser makes of it."""

import base64
import html
import json
import re
import shutil
import struct
import subprocess
from pathlib import Path

from lab import Entry, Experiment, Recipe, turn
from lab.turn import Surface
from npopt import SGD, Stop
from npopt.errors import UserError
from problems import Quadratic

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

TEMPLATES = Path(turn.__file__).parent / "templates"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
X, Y = np.linspace(-1, 2, 41), np.linspace(0, 2, 31)
PLANE = 3 + 2 * X - 0.5 * Y[:, None]  # between four values as at them
WAY = np.array([[-0.5, 0.2], [0.5, 0.7], [1.5, 1.9]])


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def bowl():
    return Quadratic([1.0, 2.0])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(the experiment, its folder): a report with a surface, two surfaces on one scale, and one that is broken."""
    made = Experiment("Can it be turned?   By hand.", task="T1", seeds=1)

    @made.runs
    def runs(args):
        yield Entry("a", Recipe(bowl), SGD(), None, 0.1, stop=Stop(steps=3))

    @made.figure("plane.png", caption="A plane.")
    def plane(results):
        return Surface(X, Y, PLANE, ("u", "v", "height"), "a </script> in its title", {"there": WAY})

    @made.figure("two.png", caption="Two, by their logarithm.")
    def two(results):
        z = np.exp(PLANE)
        return [Surface(X, Y, z, log=True), Surface(X, Y, np.where(z > 100, np.nan, z), log=True)]

    @made.figure("none.png", caption="Nothing to turn.")
    def none(results):
        raise LookupError("a bug")

    folder = tmp_path_factory.mktemp("turned")
    with pytest.raises(SystemExit):
        made.main(["--out", str(folder)], "toy")
    return made, folder


def numbers(text, low, high):
    """The slow twin of turn.js: 16-bit numbers one by one."""
    codes = [code for (code,) in struct.iter_unpack("<H", base64.b64decode(text))]
    return np.array([np.nan if code == 65535 else low + code / 65534 * (high - low) for code in codes])


def held(page):
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)]


# ----------------------------------------------------------------------------------------------------------- the values
def test_values_are_in_the_page_as_they_were():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((31, 41)) * 1e3
    z[3, 4], z[5, 6] = np.nan, np.inf
    found = turn.payload([Surface(X, Y, z, paths={"a": WAY, "b": [[9.0, 1.0], [0.5, 0.5]]})])
    low, high = found["range"]
    assert low == np.nanmin(z) and high == z[np.isfinite(z)].max()
    seen = numbers(found["panels"][0]["z"], low, high).reshape(31, 41)
    holes = ~np.isfinite(z)
    assert (np.isnan(seen) == holes).all()
    assert np.abs(seen - z)[~holes].max() <= (high - low) / 131068 * (1 + 1e-9)
    a, b = found["panels"][0]["paths"]
    for axis, wanted, (first, last, _) in zip("xy", WAY.T, (found["panels"][0][k] for k in "xy"), strict=True):
        np.testing.assert_allclose(numbers(a[axis], first, last), wanted, atol=(last - first) / 131000)
    assert list(np.isnan(numbers(b["x"], -1, 2))) == [True, False]  # cut at the window


def test_a_logarithmic_scale_has_holes_where_there_is_no_logarithm():
    z = np.full((31, 41), 10.0)
    z[0, :3] = 0.0, -1.0, 1000.0
    found = turn.payload([Surface(X, Y, z, log=True)])
    assert found["range"] == pytest.approx([1, 3])
    seen = numbers(found["panels"][0]["z"], *found["range"])
    np.testing.assert_allclose(seen[:4], [np.nan, np.nan, 3, 1], atol=1e-12)


def test_several_surfaces_have_one_scale_and_a_name_one_colour():
    one = Surface(X, Y, PLANE, paths={"a": WAY, "b": WAY})
    two = Surface(X, Y, PLANE + 10, paths={"c": WAY, "b": WAY})
    found = turn.payload(turn.surfaces([one, two]))
    assert found["range"] == [PLANE.min(), PLANE.max() + 10]
    np.testing.assert_allclose(
        numbers(found["panels"][1]["z"], *found["range"]), (PLANE + 10).ravel(), atol=20 / 131068
    )
    colour = [{path["name"]: path["colour"] for path in panel["paths"]} for panel in found["panels"]]
    assert colour[0]["b"] == colour[1]["b"] and len({*colour[0].values(), *colour[1].values()}) == 3


def test_a_constant_has_a_scale():
    assert turn.span([Surface(X, Y, 0 * PLANE)]) == (-0.5, 0.5)


def test_a_page_stays_small():
    x = np.linspace(-1, 1, 51)
    some = [Surface(x, x, x + x[:, None], paths={"a": np.zeros((500, 2)), "b": np.zeros((500, 2))})]
    script = sum((TEMPLATES / name).stat().st_size for name in ("relief.js", "turn.js"))
    assert len(json.dumps(turn.payload(some))) < 16_000 and script < 30_000


def test_boxes_have_the_shape_of_their_windows_within_reason():
    assert Surface(X, Y, PLANE).sides == pytest.approx((1, 2 / 3, turn.TALL))
    assert Surface(X, 100 * Y, PLANE).sides == pytest.approx((0.5, 1, turn.TALL))


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(x=X**2), "x must be one row of numbers that rise in equal steps"),
        (dict(y=Y[::-1]), "y must be one row"),
        (dict(z=PLANE.T), r"\(31, 41\), got \(41, 31\)"),
        (dict(paths={"a": [1.0, 2.0]}), "the path 'a' must have the shape"),
        (dict(labels=("x", "y")), "labels are three texts"),
        (dict(view=(0, -5)), "from 0 to 90 degrees, got -5"),
    ],
    ids=["steps", "falling", "shape", "path", "labels", "view"],
)
def test_mistakes_are_refused_with_a_sentence(change, words):
    with pytest.raises(UserError, match=words):
        Surface(**(dict(x=X, y=Y, z=PLANE) | change))


def test_what_cannot_share_a_figure_is_refused():
    one = Surface(X, Y, PLANE)
    with pytest.raises(UserError, match="they share their scale"):
        turn.surfaces([one, Surface(X, Y, PLANE, log=True)])
    with pytest.raises(UserError, match="at most 40000 values"):
        turn.surfaces([one] * 32)
    with pytest.raises(UserError, match="no finite value to draw on a logarithmic scale"):
        turn.payload([Surface(X, Y, -1 - 0 * PLANE, log=True)])
    assert turn.surfaces(plt.figure()) is None and turn.surfaces([]) is None and turn.surfaces([1]) is None


# ---------------------------------------------------------------------------------------------------------- the picture
def test_a_path_behind_a_ridge_is_not_seen():
    wall = np.where(abs(Y[:, None] - 1) < 0.05, 1.0, 0.0) + 0 * X
    points = np.array([[0.5, 0.5], [0.5, 1.0], [0.5, 1.2], [0.5, 5.0]])
    found, seen = turn.on(Surface(X, Y, wall, view=(-90, 20)), points, colors.Normalize(0, 1))
    np.testing.assert_allclose(found[:, 2], [0, 1, 0, np.nan], atol=1e-12)
    assert list(seen[:3]) == [True, True, False]  # the eye is at y < 0, and low
    assert turn.on(Surface(X, Y, wall, view=(-90, 89)), points, colors.Normalize(0, 1))[1].all()


def test_slopes_toward_the_light_are_brighter():
    norm = colors.Normalize(0, 1)
    left, right = (turn.lit(Surface(X, Y, s * (X + 1) / 3 + 0 * Y[:, None], view=(-90, 30)), norm) for s in (1, -1))
    assert np.ptp(left) < 1e-9 and left[0, 0] > right[0, 0] + 0.1  # rising to the right, it looks to the upper left


def test_the_picture_has_the_panels_of_the_page():
    figure = turn.picture([Surface(X, Y, PLANE, title="one", paths={"there": WAY}), Surface(X, Y, PLANE + 1)])
    one, two, bar = figure.axes
    assert (one.get_title(), two.get_title(), bar.get_ylabel()) == ("one", "", "f")
    assert one.get_zlim() == two.get_zlim() == (PLANE.min(), PLANE.max() + 1) == bar.get_ylim()
    np.testing.assert_allclose(np.array(one.lines[0].get_data_3d())[:2].T, WAY)


# ------------------------------------------------------------------------------------------------------------- the page
def test_the_page_holds_all_it_needs(written):
    page = (written[1] / "toy/report.html").read_text()
    assert page.count('<div class="turn">') == page.count("<canvas") == 2  # not for the figure that is broken
    assert page.count("class Turning") == 1
    assert not re.search(r"https?:|url\(|@import|fetch|XMLHttp|WebSocket|import\(", page)
    addresses = {address.split(":")[0] for address in re.findall(r'(?:src|href)="([^"]*)"', page)}
    assert addresses == {"data", "../index.html"}
    one, two = held(page)
    assert one["panels"][0]["title"] == "a </script> in its title" and len(two["panels"]) == 2
    style, printing = page.split("@media print")[:2]
    assert ".turn { display: none;" in style and "figure.turned > img { display: none; }" in style
    assert "figure.turned .turn { display: none; } figure.turned > img { display: block; }" in printing


def test_scripts_are_neither_templates_nor_the_end_of_one():
    for name in ("relief.js", "turn.js"):
        assert not re.search(r"\{\{|\{%|\{#|</script", (TEMPLATES / name).read_text()), name


def test_drawn_again_it_is_there_and_the_store_has_not_grown(written):
    made, folder = written
    before = {path.name: path.stat().st_size for path in (folder / "toy/runs").iterdir()}
    old = held((folder / "toy/report.html").read_text())
    (folder / "toy/report.html").unlink()
    with pytest.raises(SystemExit):
        made.main(["--out", str(folder), "--redraw"], "toy")
    assert held((folder / "toy/report.html").read_text()) == old
    assert {path.name: path.stat().st_size for path in (folder / "toy/runs").iterdir()} == before
    figures = json.loads((folder / "toy/summary.json").read_text())["figures"]
    assert [set(figure) for figure in figures] == [{"name", "caption", "reason"}] * 3


def test_a_page_without_surfaces_has_no_script():
    from lab.report import environment

    assert "selectattr" in (TEMPLATES / "report.html.j2").read_text()
    only = "{% if figures | selectattr('turn') | list %}script{% endif %}"
    assert environment().from_string(only).render(figures=[{"turn": None}, {}]) == ""


BEFORE = """<script>
const faults = [];
addEventListener("error", event => faults.push(event.message));
console.error = console.warn = (...words) => faults.push(words.join(" "));
requestAnimationFrame = draw => setTimeout(draw, 0); // without a screen there are no frames to wait for
</script>"""
AFTER = """<script>
(async () => {
  // Cells are small again after 150 ms; what was asked for then is drawn before the second timer, however slow it is.
  const found = [], wait = () => new Promise(done => setTimeout(() => setTimeout(done, 50), 250));
  for (const room of document.querySelectorAll(".turn")) {
    const canvas = room.querySelector("canvas"), box = canvas.getBoundingClientRect(), said = {};
    const dots = () => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const look = () => canvas.toDataURL();
    const send = (type, dx, dy, buttons) => canvas.dispatchEvent(new PointerEvent(type, {
      bubbles: true, pointerId: 1, pointerType: "mouse", buttons,
      clientX: box.left + 0.3 * box.width + dx, clientY: box.top + 0.5 * box.height + dy }));
    const colours = new Set(new Uint32Array(dots().buffer)).size, first = look();
    send("pointermove", 0, 0, 0);
    const tip = room.querySelector(".said").textContent;
    send("pointerdown", 0, 0, 1); send("pointermove", 60, 25, 1); send("pointerup", 60, 25, 0); await wait();
    said.dragged = look() !== first;
    room.querySelector("button").click(); await wait();
    said.reset = look() === first;
    canvas.focus();
    canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -90, cancelable: true })); await wait();
    said.zoomed = look() !== first;
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "Home" })); await wait();
    said.home = look() === first;
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp" })); await wait();
    said.keys = look() !== first;
    const [shown, still] = [room, room.parentElement.querySelector("img")].map(e => getComputedStyle(e).display);
    found.push({ ...said, colours, tip, shown, still });
  }
  document.title = JSON.stringify({ found, faults });
})();
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_turns_it(written, tmp_path):
    page = (written[1] / "toy/report.html").read_text()
    page = page.replace("<head>", "<head>" + BEFORE).replace("</body>", AFTER + "</body>")
    (tmp_path / "page.html").write_text(page)
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/u", "--window-size=700,900"]
    words += ["--virtual-time-budget=20000", "--dump-dom", (tmp_path / "page.html").as_uri()]
    done = subprocess.run([BROWSER, *words], capture_output=True, text=True, timeout=120)
    seen = json.loads(html.unescape(re.search("<title>(.*?)</title>", done.stdout, re.S)[1]))
    assert seen["faults"] == [] and len(seen["found"]) == 2
    for one in seen["found"]:
        assert all(one[name] for name in ("dragged", "reset", "zoomed", "home", "keys")), one
        assert one["colours"] > 500 and (one["shown"], one["still"]) == ("block", "none")
    u, v, height = (float(line.split(" = ")[1].replace("\u2212", "-")) for line in seen["found"][0]["tip"].split("\n"))
    assert -1 <= u <= 2 and 0 <= v <= 2 and height == pytest.approx(3 + 2 * u - 0.5 * v, abs=5e-3)
