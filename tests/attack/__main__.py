"""`python -m tests.attack --minutes 30 --out FILE`: print the verdict as a table, write it as JSON, and exit with 1 if
it shows a fault of the gateway."""

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.attack.attacks import ATTACKS
from tests.attack.battle import attack

NICE = 5


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    arguments.add_argument("--minutes", type=float, default=30.0)
    arguments.add_argument("--out", type=Path, help="the verdict as JSON")
    arguments.add_argument("--only", choices=ATTACKS, nargs="+", default=ATTACKS)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        verdict = uvloop.run(attack(given.minutes * 60, Path(folder), given.only, NICE))
    sys.stdout.write(verdict.table() + "\n")
    if given.out:
        given.out.write_text(verdict.json())
    return 1 if verdict.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
