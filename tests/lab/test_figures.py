"""Figures: what is drawn is what the runs hold."""

import itertools

from lab import Results, charts
from lab.charts import tuned
from lab.figures import COLOURS, by_row, closer, curves, each, fitted, halved, heat, named, panels, said
from lab.pictures import drawn, save
from lab.results import Finished
from lab.surfaces import map_of, moving, on_relief, relief
from npopt.analysis import RangeTest
from problems.landscapes import EVERY

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from PIL import Image, ImageColor


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def run(name, seed, seconds, losses, held=0.5, reason="epochs", **tags):
    columns = {
        "epoch": np.arange(len(losses)),
        "seconds": np.array(seconds),
        "train_loss": np.array(losses),
        "test_accuracy": 1 - np.array(losses) / 10,
        "train_accuracy": 1 - np.array(losses) / 20,
    }
    final = {column: values[-1] for column, values in columns.items()} | {"held_loss": held}
    return Finished("a", {"method": name, **tags}, seed, {}, columns, final, 0.0, reason)


def test_seeds_against_time_are_taken_row_by_row():
    some = Results(
        [
            run("m", 0, [0, 1, 2], [3.0, 2, 1]),
            run("m", 1, [0, 3, 6], [5.0, 4, 3]),
            run("m", 2, [0, 2, 9, 10], [4.0, 3, 2, 1]),
        ]
    )
    x, y = by_row(some, "train_loss", "seconds")
    np.testing.assert_array_equal(x, [0, 2, 6])
    np.testing.assert_array_equal(y, [[3, 2, 1], [5, 4, 3], [4, 3, 2]])
    _, ax = panels()
    curves(ax, some, "train_loss", "seconds")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 4], [2, 3], [6, 2]])
    assert ax.get_legend().get_title().get_text() == "median, band: min to max of 3 seeds"


@pytest.mark.parametrize("axis", ["x", "y"])
def test_numbers_on_a_short_logarithmic_axis_are_plain_and_stand_apart(axis):
    wide = np.geomspace(0.00123, 0.0567, 9)
    figure, axes = panels(1, 3)
    curves(axes[1], Results([run("m", 0, wide, wide[::-1])]), "train_loss", "seconds", logx=True, logy=True)
    figure.canvas.draw()
    one = getattr(axes[1], f"{axis}axis")
    low, high = one.get_view_interval()
    shown = [(t.get_position()[axis == "y"], t) for minor in (False, True) for t in one.get_ticklabels(minor)]
    texts = [
        text for place, text in sorted(shown, key=lambda pair: pair[0]) if text.get_text() and low <= place <= high
    ]
    assert [text.get_text() for text in texts] == ["0.002", "0.005", "0.01", "0.02", "0.05"]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_the_legend_says_what_the_band_is():
    assert [said(n) for n in (1, 2, 4)] == [
        "1 seed",
        "median, band: min to max of 2 seeds",
        "median, band: min to max of 4 seeds",
    ]
    assert said(5) == "median, band: quartiles of 5 seeds"


def test_heat_writes_every_number_and_says_where_there_is_none():
    _, ax = panels()
    heat(ax, [[1.0, 20.0], [np.nan, 3.0]], [0.1, 0.2], ["a", "b"], "rate", "start", "loss", log=True)
    assert [t.get_text() for t in ax.texts] == ["1", "20", "diverged", "3"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0.1", "0.2"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]


def test_tuned_draws_each_method_at_its_best_rate():
    some = Results(
        [
            run("A", 0, [0, 1], [3.0, 2.0], 0.9, lr=0.1),
            run("A", 0, [0, 1], [3.0, 1.0], 0.5, lr=1),
            run("B", 0, [0, 1, 2], [3.0, 2.5, 2.0], 0.4, lr=1),
            run("B", 0, [0], [3.0], reason="diverged: nan", lr=10),
        ]
    )
    figure = tuned(some, "held_loss")
    left, middle, right = figure.axes
    assert [list(line.get_ydata()) for line in left.lines] == [[3, 1], [3, 2.5, 2]]
    np.testing.assert_allclose(middle.lines[0].get_ydata(), [30, 10])
    assert list(right.lines[0].get_xdata()) == [0.1, 1] and list(right.lines[1].get_xdata()) == [1]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["A", "B"]


def test_a_picture_has_as_many_dots_as_were_drawn():
    """4.1 inches are 409.99... dots in floating point, and matplotlib draws 410: a row more or less is a skewed one."""
    figure = plt.figure(figsize=(7.2, 4.1), facecolor="white")
    figure.add_artist(Rectangle((0.5, 0), 0.5, 1, color="black"))
    picture = drawn(figure, 100)
    assert picture.size == (720, 410)
    dark = np.asarray(picture.convert("L")) < 128
    assert dark[:, 370].all() and not dark[:, 350].any(), "the edge is upright"


def test_the_colours_of_thin_lines_survive_the_palette(tmp_path):
    figure, ax = panels()
    ax.imshow(np.random.default_rng(0).random((200, 200)), cmap="gray", extent=(0, 1, 0, 1))
    for i, colour in enumerate(COLOURS):
        ax.axhline((i + 1) / 9, color=colour, lw=2)
    save(figure, tmp_path / "a.png")
    found = {colour for _, colour in Image.open(tmp_path / "a.png").convert("RGB").getcolors(1 << 20)}
    for colour in (*COLOURS, "white"):
        near = min(max(abs(a - b) for a, b in zip(ImageColor.getrgb(colour), other, strict=True)) for other in found)
        assert near <= 4, colour


def test_a_range_test_is_drawn_with_both_of_its_rates():
    rates = np.geomspace(1e-4, 1, 41)
    found = RangeTest(rates, (np.log10(rates) + 1.5) ** 2)
    figure = charts.range_test(found)
    drawn = [line.get_xdata()[0] for line in figure.axes[0].lines[2:]]
    assert drawn == [found.steepest, found.highest] and found.steepest < found.highest < rates[-1]
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), found.smooth)


def test_the_untrained_state_is_left_out_of_the_picture():
    _, ax = panels()
    some = Results(
        [
            run("A", 0, [0, 1, 2], [9.0, 2.0, 1.0]),
            run("A", 1, [0, 1], [9.0, 4.0]),
            run("A", 2, [0, 1], [9.0, 99.0], reason="diverged: nan"),
        ]
    )
    closer(ax, some, "train_loss", 0.1, 0.2)
    np.testing.assert_allclose(ax.get_ylim(), [0.9, 4.8])


def test_each_name_has_a_panel_and_the_others_are_empty():
    def draw(ax, name):
        ax.plot([0, 1], [0, len(name)], label="line")

    figure = each(["a", "bb", "ccc", "d", "e"], draw)
    assert [ax.get_title() for ax in figure.axes] == ["a", "bb", "ccc", "d", "e", ""]
    assert not figure.axes[5].axison and [t.get_text() for t in figure.legends[0].get_texts()] == ["line"]


def test_a_fitted_line_has_its_slope_in_the_label():
    _, ax = panels()
    steps = np.array([1, 0.5, 0.25])
    fitted(ax, steps, 3 * steps**2, 1, "floor")
    halved(ax, steps, "step", "floor")
    assert ax.lines[0].get_label() == "floor, slope 2.00" and ax.get_xscale() == "log"
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 3 * steps**2)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "1/2", "1/4"]


def test_a_ranking_sorts_methods_by_their_test_accuracy_at_their_best_rates():
    some = Results(
        [
            run("A", 0, [0, 1], [3.0, 2.0], 0.3, lr=0.1),
            run("A", 0, [0, 1], [3.0, 0.5], 0.4, lr=1),
            run("B", 0, [0, 1], [3.0, 1.0], 0.4, lr=1),
        ]
    )
    ax = charts.ranking(some, by="held_loss").axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["A (0.1)", "B (1)"]
    assert ax.texts[0].get_text() == "gap 10.0 ± 0.0" and list(ax.lines[2].get_xdata()) == [80]


def test_rates_that_were_chosen_stand_in_circles_and_the_least_score_is_known():
    some = Results([run("A", 0, [0, 1], [3.0, 2.0], held, lr=lr) for lr, held in ((0.3, 0.4), (0.1, 0.5), (0.9, 7.0))])
    some.append(run("B", 0, [0, 1], [3.0, 2.0], 0.6, lr=1.0))
    _, ax = panels()
    assert charts.against_rate(ax, some.tuned(by="held_loss")) == 0.4
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0.1, 0.5], [0.3, 0.4], [0.9, 7.0]])
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[0.3, 0.4]])
    assert [line.get_color() for line in ax.lines] == [COLOURS[0]] * 2 + [COLOURS[1]] * 2


def test_gaps_have_a_panel_for_each_set_and_colours_by_method():
    def gap(name, data, values):
        columns = {"step": np.arange(len(values)), "gap": np.array(values)}
        return Finished("a", {"data": data, "method": name}, 0, {}, columns, {}, 0.0, "target")

    some = Results([gap("B", "one", [1.0, 1e-3, 1e-8]), gap("A", "two", [1.0, 1e-8]), gap("C", "two", [1.0, 1.0])])
    one, two = [ax for ax in charts.gaps(some, ("A", "B"), 1e-7).axes if ax.axison]
    assert [ax.get_title() for ax in (one, two)] == ["one", "two"] and len(two.lines) == 2  # C is not among the methods
    assert (one.lines[0].get_color(), two.lines[0].get_color()) == (COLOURS[1], COLOURS[0])
    assert one.lines[1].get_ydata()[0] == 1e-7 and one.get_ylim()[0] == pytest.approx(3e-8)


def test_rates_are_drawn_in_units_of_the_customary_one():
    some = Results([run("A", 0, [0, 1], [3.0, 2.0], held, lr=lr) for lr, held in ((0.1, 0.5), (0.3, 0.9), (0.9, 7.0))])
    some.append(run("B", 0, [0, 1], [3.0, 2.0], 0.6, lr=1.0, reason="diverged: nan"))
    ax = charts.rates(some, {"A": 0.1, "B": 1.0}, {1: "1", 3: "3"}, by="held_loss").axes[0]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 0.5], [3, 0.9], [9, np.nan]])
    np.testing.assert_allclose(ax.get_ylim(), [0.5 / 1.05, 1.5])
    assert list(ax.lines[1].get_xdata()) == [9] and list(ax.lines[3].get_xdata()) == [1]  # off the scale, and diverged
    families = {"one": ("A", "absent"), "two": ("B",)}
    axes = charts.rates(some, {"A": 0.1, "B": 1.0}, {1: "1"}, by="held_loss", families=families).axes
    assert [ax.get_title() for ax in axes] == ["one", "two"]
    assert [[t.get_text() for t in ax.get_legend().get_texts()] for ax in axes] == [["A"], ["B"]]


def test_names_stand_at_the_ends_of_their_lines_and_apart():
    figure, ax = panels()
    for i, y in enumerate((0.5, 0.501, 0.0)):
        ax.plot([0, 1], [0.2, y], label="abc"[i], color=COLOURS[i])
    ax.plot([0, 0.3], [0.9, 1.0], label="short")
    ax.plot([0, 0.3], [0.9, 1.001], label="beside")
    ax.plot([0, 1], [0.4, 0.4], label="_nothing")
    limits = ax.get_ylim()
    named(ax)
    places = {t.get_text(): t.xy for t in ax.texts}
    assert places.keys() == {"a", "b", "c", "short", "beside"} and ax.get_ylim() == limits
    height = 1.25 * 10 / 72 / (figure.get_size_inches()[1] * ax.get_position().height)
    gap = places["b"][1] - places["a"][1]
    assert height * 0.99 < gap < height * 1.01  # apart by a name's height, about their middle, in their order
    low, high = limits
    middle = (places["a"][1] + places["b"][1]) / 2
    np.testing.assert_allclose(middle, (0.5005 - low) / (high - low), atol=1e-6)
    np.testing.assert_allclose(places["c"], (1.015, (0 - low) / (high - low)), atol=1e-6)
    assert places["short"][0] < 0.5 and places["beside"][1] - places["short"][1] > 0.98 * height
    assert ax.texts[0].get_color() in COLOURS


def test_the_last_frame_of_an_animation_stays(tmp_path):
    def frames():
        figure, ax = panels(size=(2, 2))
        for k in range(4):
            ax.plot([0, k], [0, 1])
            yield figure

    save(frames(), tmp_path / "some.gif")
    with Image.open(tmp_path / "some.gif") as image:
        times = []
        for k in range(image.n_frames):
            image.seek(k)
            times.append(image.info["duration"])
    assert times == [80, 80, 80, 2000]


def test_ways_grow_on_a_map_and_on_a_relief_and_are_cut_at_the_window():
    way = np.array([[0.5, 0.0], [0.2, 0.5], [0.1, 5.0]])
    columns = {"x": way[:, 0], "y": way[:, 1], "f": way[:, 0] ** 2 - way[:, 1] ** 2, "gap": np.array([1.0, 1e-20, 0.5])}
    runs = {"m": Finished("a", {}, 0, {}, columns, {}, 0.0, "steps")}
    land = EVERY["open saddle"]
    on = on_relief(land, way)
    np.testing.assert_allclose(on[:, 1], [0.2, 0.5, 0.2**2 - 0.5**2])
    assert np.isnan(on[:, 2]).all()
    *_, figure = moving(lambda ax: map_of(ax, land), runs, (0, 2))
    curve = figure.axes[1].lines[0].get_ydata()
    assert curve[0] == 1 and np.isnan(curve[1]) and figure.axes[1].get_title() == "step 2"
    frames = moving(
        lambda ax: (relief(ax, land), (-3, 1))[1], runs, (0, 1), "f", lambda w: on_relief(land, w), projection="3d"
    )
    for t, figure in enumerate(frames):
        left, right = figure.axes[0], figure.axes[1]
        assert len(right.lines[0].get_ydata()) == t + 1 and right.get_ylim() == (-3, 1) and left.get_zlabel() == "f"
