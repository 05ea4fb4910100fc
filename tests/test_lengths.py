"""Scripts and the lab stay short enough to be read: at most 350 lines a file."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]


def test_no_script_and_no_file_of_the_lab_is_longer_than_350_lines():
    files = [path for room in ("scripts", "lab") for path in (ROOT / room).glob("*.py")]
    long = {path.name: n for path in files if (n := len(path.read_text().splitlines())) > 350}
    assert len(files) > 20 and not long, long
