"""The pages of the documentation as text, and the blocks and tables in them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
EVERYTHING = "\n".join(TEXTS.values())


def page(name: str) -> str:
    """The text of the page at `name`, relative to the project."""
    return TEXTS[ROOT / name]


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one of the same level or a higher one."""
    level = len(heading) - len(heading.lstrip("#"))
    below = re.split(rf"^{re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    return re.split(rf"^#{{1,{level}}} ", below, flags=re.MULTILINE)[0]


def rows(text: str, begin: str = "") -> Iterator[list[str]]:
    """The cells of each row of the first table behind `begin`, without the head."""
    table = text[text.index(begin) :].partition("\n\n|")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def quoted(cell: str) -> list[str]:
    """The names in code quotes."""
    return re.findall(r"`([^`\n]+)`", cell)


def anchors(text: str) -> set[str]:
    """The anchors of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
