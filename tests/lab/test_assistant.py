"""`npopt verse`: lines of the form that was asked for, in the terminal and on a page of this machine alone."""

import contextlib
import http.client
import json
import shutil
import subprocess
import threading
import urllib.parse

from lab import cli, verse_page
from lab.assistant import trained
from lab.wish import Wish
from npopt.errors import UserError
from problems.neural import Neural

import numpy as np
import pytest

UPPER = "ABrdB"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module", params=["encoder-decoder", "lstm"])
def assistant(request, tmp_path_factory):
    return trained("couplets", request.param, 40, tmp_path_factory.mktemp("verse"))


@contextlib.contextmanager
def served(assistant):
    with verse_page.server(assistant) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def get(port, path, **headers):
    """(status, headers, body) of a request, as the text stands there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def write(port, **fields):
    status, _, body = get(port, "/write?" + urllib.parse.urlencode(fields))
    return status, json.loads(body)


def test_lines_have_the_form_that_was_asked_for(assistant):
    prosody, rhyme = assistant.prosody, next(iter(assistant.prosody.rhymes))
    plain = assistant.write(Wish(UPPER, count=6, seed=3))
    assert plain and all(len(one["text"]) == 5 and one["rhymes"] is None for one in plain)
    assert assistant.write(Wish(UPPER, count=6, seed=3)) == plain
    assert assistant.write(Wish(UPPER, count=6, seed=4)) != plain
    bound = assistant.write(Wish(UPPER, begin="Zx", rhyme=rhyme, tones=True, count=6, temperature=3.0))
    for one in bound:
        assert one["text"].startswith("Zx") and one["rhymes"] and prosody.rhyming(one["text"][-1], rhyme)
    free = assistant.write(Wish(UPPER, tones=True, count=10, temperature=5.0))
    assert all(prosody.tone(one["text"][-1]) >= 0 for one in free)
    assert all(all(prosody.opposed(UPPER, one["text"])) and one["opposed"][0] == one["opposed"][-1] for one in free)
    assert len(assistant.write(Wish(UPPER, temperature=0, count=4))) == 1  # greedy draws are all the same


def test_scores_are_mean_log_probabilities_and_searches_find_better_lines(assistant):
    found = assistant.write(Wish(UPPER, beam=12, count=3))
    drawn = assistant.write(Wish(UPPER, count=8, temperature=1.0))
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True) and len(found) == 3
    assert scores[0] >= max(one["score"] for one in drawn) - 1e-3  # the search also weighs the end
    problem, (upper, text) = assistant.problem, (UPPER, found[0]["text"])
    encode = problem.verses.vocabulary.encode
    *inputs, targets = problem.feed.table([(encode(upper), encode(text))])
    problem.network.bind(assistant.x)
    z, _ = problem.network.forward(tuple(inputs) if len(inputs) > 1 else inputs[0], room_run())
    places = np.flatnonzero(targets[0] >= 0)[:-1]
    logs = [z[0, p, targets[0, p]] - np.log(np.exp(z[0, p].astype(float)).sum()) for p in places]
    assert found[0]["score"] == pytest.approx(np.mean(logs), abs=1e-4)


def room_run():
    from nn import Run

    return Run()


@pytest.mark.parametrize(
    "fields, why",
    [
        (dict(upper="abc"), "must have 5 or 7 characters, got 3"),
        (dict(upper=UPPER, begin="abcde"), "shorter than the line's 5"),
        (dict(upper=UPPER, rhyme="ab"), "one character"),
        (dict(upper=UPPER, count="0"), "count must be 1 to 20, got 0"),
        (dict(upper=UPPER, count="21"), "count must be 1 to 20"),
        (dict(upper=UPPER, beam="65"), "beam must be 0 to 64"),
        (dict(upper=UPPER, count="many"), "count must be a number, got 'many'"),
        (dict(upper=UPPER, temperature="nan"), "temperature"),
        (dict(upper=UPPER, top_p="2"), "top_p"),
        (dict(upper=UPPER, colour="red"), "there is no 'colour'"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(fields, why):
    with pytest.raises(UserError, match=why):
        Wish.of(fields)


def test_wishes_are_cleaned_and_ends_unknown_are_refused(assistant):
    assert Wish(" AB rdB，").upper == UPPER and Wish.of({"upper": UPPER, "tones": "on", "top_k": "3"}).tones
    with pytest.raises(UserError, match="no rhymes of '!' are known"):
        assistant.write(Wish(UPPER, rhyme="!"))
    with pytest.raises(UserError, match="'!' is not a character"):
        assistant.write(Wish(UPPER, begin="!"))
    with pytest.raises(UserError, match="holds no poems"):
        trained("digits", "lstm", 1, "nowhere")


def test_the_page_gives_lines_and_says_what_is_wrong(assistant):
    with served(assistant) as port:
        status, headers, page = get(port, "/")
        assert status == 200 and "<form" in page and headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert [get(port, path)[0] for path in ("/verse.js", "/verse.css", "/else", "/../readme.txt")] == [
            200,
            200,
            404,
            404,
        ]
        status, found = write(port, upper=UPPER, count=3, seed=1)
        assert status == 200 and found["lines"] == assistant.write(Wish(UPPER, count=3, seed=1))
        for fields, why in (
            (dict(upper="<b>"), "5 or 7"),
            (dict(count=3), "5 or 7"),
            (dict(upper=UPPER, seed="x"), "number"),
        ):
            status, found = write(port, **fields)
            assert status == 400 and why in found["error"] and list(found) == ["error"]


def test_the_page_is_for_this_machine_alone_and_requests_are_short(assistant):
    with served(assistant) as port:
        assert get(port, "/", Host="example.org")[0] == 403
        assert get(port, "/", Host=f"localhost:{port}")[0] == 200
        assert [get(port, "/", **{"Sec-Fetch-Site": site})[0] for site in ("same-origin", "cross-site")] == [200, 403]
        assert get(port, "/write?upper=" + "a" * 2000)[0] == 414
        assert get(port, "/write?" + "&".join(f"a{i}=1" for i in range(30)))[0] == 400
        assert get(port, "/write?upper=%ff%fe")[0] == 400
        assert get(port, "/write?upper=ABrdB&upper=ABrdB")[0] == 400
        with pytest.raises(UserError, match=f"port {port} cannot be had"):
            verse_page.server(assistant, port)
        with pytest.raises(UserError, match="port 99999 cannot be had"):
            verse_page.server(assistant, 99999)


def test_the_command_trains_once(tmp_path, capsys, monkeypatch):
    words = [
        "verse",
        UPPER,
        "--data",
        "couplets",
        "--network",
        "lstm",
        "--steps",
        "12",
        "--out",
        str(tmp_path),
        "--seed",
        "5",
    ]
    assert cli.main(words) == 0
    first = capsys.readouterr().out
    assert first.splitlines()[0] == UPPER and len(first.splitlines()) > 1 and "perplexity" in first
    (kept,) = (tmp_path / "verse").iterdir()
    assert kept.name == "couplets-lstm-12.npz"
    monkeypatch.setattr(Neural, "value_and_gradient", None)  # no step is made any more
    assert cli.main(words) == 0 and capsys.readouterr().out == first
    kept.write_bytes(kept.read_bytes()[:-100])
    assert cli.main(words) == 2 and f"delete {kept}" in capsys.readouterr().err
    for wrong, why in (
        ([], "give a line"),
        (["AB"], "5 or 7"),
        ([UPPER, "--page"], "or --page"),
        ([UPPER, "--steps", "0"], "at least 1"),
    ):
        assert cli.main(["verse", *wrong, "--data", "couplets", "--out", str(tmp_path)]) == 2
        assert why in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_in_a_browser(assistant, tmp_path):
    """The page's own script asks, and shows lines and errors as text."""
    with served(assistant) as port:
        for fields, expected in ((dict(upper=UPPER, count=2), None), (dict(upper="<i>ab</i>"), "5 or 7 characters")):
            address = f"http://127.0.0.1:{port}/?" + urllib.parse.urlencode(fields)
            command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
                       "--virtual-time-budget=20000", "--dump-dom", address]  # fmt: skip
            seen = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
            wanted = [one["text"] for one in assistant.write(Wish(UPPER, count=2))] if expected is None else [expected]
            assert all(text in seen for text in wanted) and "<i>ab" not in seen
