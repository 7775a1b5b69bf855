"""Find the name that was probably meant. Knows no model and no parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

LONGEST = 128  # characters of a word that may be a misspelt name
CLOSE = 0.7  # of difflib's measure: one wrong letter in four
MOST = 256  # names that a word is compared with letter by letter: each takes some ten microseconds

_MARKS = re.compile(r"[\W_]+")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known name that is spelt most like `word`, if one is close. Case, punctuation and the owner before a
    slash make no difference; of names that are equal without them, the one with the same owner is meant."""
    if len(word) > LONGEST:
        return None
    owned = _bare(word, owner=True)
    by_letters: dict[str, str] = {}
    for name in known:
        letters = _bare(name)
        if letters not in by_letters or _bare(name, owner=True) == owned:
            by_letters[letters] = name
    if (same := by_letters.get(_bare(word))) is not None:
        return same
    close = get_close_matches(_bare(word), islice(by_letters, MOST), n=1, cutoff=CLOSE)
    return by_letters[close[0]] if close else None


def _bare(name: str, *, owner: bool = False) -> str:
    """Return the letters and digits of a name, without its owner unless asked for."""
    return _MARKS.sub("", (name if owner else name.rpartition("/")[2]).casefold())
