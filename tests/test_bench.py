"""That `make bench` works, and knows a figure for each of its rows. It measures nothing here."""

import json
import re
import subprocess
import sys
from pathlib import Path

from scripts.bench import FIGURES, ROWS, table

ROOT = Path(__file__).resolve().parent.parent


def test_a_row_is_measured_and_shown_beside_its_figure() -> None:
    command = [sys.executable, "scripts/bench.py", "--only", "1k", "--requests", "5", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    [head, row] = done.stdout.splitlines()
    assert head.split() == ["row", "now", "kept", "change"]
    assert re.match(r"1k +\d+\.\d+ +\d+\.\d+ +[+-]\d+%", row)


def test_each_row_has_a_figure_in_the_repository() -> None:
    assert list(json.loads(FIGURES.read_text())) == list(ROWS)


def test_a_change_is_told_where_it_is_more_than_noise() -> None:
    lines = table({"1k": 5.0, "2m": 10.4, "20m": 8.0}, {"1k": 4.0, "2m": 10.0, "20m": 10.0}).splitlines()
    assert [line.split()[3:] for line in lines[1:]] == [["+25%", "slower"], ["+4%"], ["-20%", "faster"]]
