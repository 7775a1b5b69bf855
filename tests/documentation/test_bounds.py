"""The numbers that the pages state are those of the code."""

import ast
import operator
from collections import defaultdict

import pytest

from tests.documentation.pages import ROOT, page

KIB, MIB = 1024, 1024 * 1024
OPERATORS = {ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv, ast.Pow: operator.pow}

FACTS = [
    # page, its words, the constant's name, its value
    ("security", "64 KiB, 256 headers, 30 s; trailers are dropped", "LONGEST_HEAD", 64 * KIB),
    ("security", "64 KiB, 256 headers, 30 s; trailers are dropped", "MOST_HEADERS", 256),
    ("security", "64 KiB, 256 headers, 30 s; trailers are dropped", "HEAD_SECONDS", 30),
    ("security", "60 s; the run goes on", "STALLED_SECONDS", 60),
    ("security", "the last 64 descriptors", "RESERVED_FILES", 64),
    ("security", "a message has at most 4,000 characters", "LONGEST_MESSAGE", 4000),
    ("security", "64 levels, 100,000 values behind aliases", "_MOST_LEVELS", 64),
    ("security", "64 levels, 100,000 values behind aliases", "_MOST_ALIASED", 100_000),
    ("security", "at least 16 characters", "SHORTEST_KEY", 16),
    ("security", "1 MiB, 16,384 objects and arrays, 64 levels", "MOST_HOLDERS", 16_384),
    ("security", "1 MiB, 16,384 objects and arrays, 64 levels", "MAX_DEPTH", 64),
    ("security", "4 MiB, 4,096 events, 131,072 lines", "MOST_BESIDE", 4 * MIB),
    ("security", "4 MiB, 4,096 events, 131,072 lines", "MOST_EVENTS", 4096),
    ("security", "4 MiB, 4,096 events, 131,072 lines", "MOST_LINES", 131_072),
    ("security", "the first 4,096 are read", "MOST_STRINGS", 4096),
    ("security", "16 for each image asked for", "PARTIALS", 16),
    ("security", "| A link of a provider | 64 KiB |", "LONGEST_LINK", 64 * KIB),
    ("security", "| An error's body | 64 KiB, 5 s |", "LONGEST_ERROR", 64 * KIB),
    ("security", "| An error's body | 64 KiB, 5 s |", "ERROR_SECONDS", 5),
    ("security", "10,000 values and 1 MiB of names", "MOST_VALUES", 10_000),
    ("security", "10,000 values and 1 MiB of names", "MOST_NAMES", MIB),
    ("security", "| Fields of a request in JSON; parts of a form | 200 |", "MOST_FIELDS", 200),
    ("security", "| Fields of a request in JSON; parts of a form | 200 |", "MAX_PARTS", 200),
    ("security", "| `svg` | 16 KiB of JSON |", "LONGEST_STRUCTURE", 16 * KIB),
    ("security", "2,048 characters or a digest", "SHORT", 2048),
    ("security", "before its pixels | 4,096 |", "MOST_PARTS", 4096),
    ("security", "when it is converted | 65,536 |", "MOST_CHUNKS", 65_536),
    ("security", "| Scans of a JPEG that is converted | 200 |", "MOST_SCANS", 200),
    ("security", "colour profile 4 MiB", "MOST_PROFILE", 4 * MIB),
    ("security", "| File that its decoder wants whole (WebP, AVIF, packed TIFF) | 64 MiB |", "MOST_WHOLE", 64 * MIB),
    ("security", "| 50 million / 62.5 million |", "PIXELS", 50_000_000),
    ("security", "| One conversion | 120 s |", "SECONDS", 120),
    ("money", "`retry-after`, at most a day", "LONGEST_RETRY_AFTER", 86_400),
    ("money", "5 s, then 10, 20, … up to 60", "LIMITED", (5, 60)),
    ("money", "60 s, then 120, … up to 600", "ACCOUNT", (60, 600)),
    ("money", "10 s, then 20, … up to 120", "FAILING", (10, 120)),
    ("money", "The third failure in a row", "FAILURES_IN_A_ROW", 3),
    ("money", "(at first `typical_seconds`, else 10 s)", "GUESSED_SECONDS", 10),
    ("money", "If the connection breaks within ten seconds", "RETURN_SECONDS", 10),
    ("money", "(128 runs, 4 MiB of memory, 64 files)", "DELIVERED_RUNS", 128),
    ("money", "(128 runs, 4 MiB of memory, 64 files)", "DELIVERED_BYTES", 4 * MIB),
    ("money", "(128 runs, 4 MiB of memory, 64 files)", "DELIVERED_FILES", 64),
    ("money", "10,000 runs are known", "RUNS", 10_000),
    ("errors", "takes more than an hour", "LONGEST_SECONDS", 3600),
    ("deployment", "a budget of 16 MiB (44 MiB", "WORKING_SET", 16 * MIB),
    ("deployment", "(44 MiB when there are only one or two, 8 MiB", "FREE_FOR_FEW", 44 * MIB),
    ("deployment", "8 MiB when there are more than sixteen)", "FREE_FOR_MANY", 8 * MIB),
    ("deployment", "of each uploaded picture at most 128 KiB stay in memory", "_IN_MEMORY", 128 * KIB),
    ("deployment", "At most 128 MiB of memory hold all text", "TEXT_IN_MEMORY", 128 * MIB),
    ("deployment", "A conversion is given up after two minutes", "SECONDS", 120),
    ("deployment", "serving goes on for a second", "NOTICE_SECONDS", 1),
    ("configuration", "over each 30 seconds", "GRACE_SECONDS", 30),
]


def evaluate(node: ast.AST) -> object:
    """A constant, a product of some, or a tuple of them; Ellipsis for anything else."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Tuple():
            return tuple(map(evaluate, node.elts))
        case ast.BinOp() if type(node.op) in OPERATORS:
            sides = evaluate(node.left), evaluate(node.right)
            if all(isinstance(side, int | float) for side in sides):
                return OPERATORS[type(node.op)](*sides)
    return ...


def find_constants() -> dict[str, list[object]]:
    """The values of the constants of every module, by name."""
    found: defaultdict[str, list[object]] = defaultdict(list)
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found[node.targets[0].id].append(evaluate(node.value))
    return found


CONSTANTS = find_constants()


@pytest.mark.parametrize(("name", "words", "constant", "number"), FACTS)
def test_a_number_on_a_page_is_the_one_in_the_code(name: str, words: str, constant: str, number: object) -> None:
    assert words in " ".join(page(f"docs/{name}.md").split())
    assert number in CONSTANTS[constant], f"{constant} is {CONSTANTS[constant]}"
