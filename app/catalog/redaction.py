"""Remove credentials and prompts from a provider's words before callers or logs get them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from app.catalog.deployments import Provider

SHORTEST_SECRET = 6  # characters; shorter words of a header are no credential, and would be found in any text
SHORTEST_PROMPT = 4  # characters; shorter ones say nothing, and would be found in any text
QUOTED = 16  # characters in a row that a text shares with a prompt only if it quotes it
LEFT_OUT = "[…]"


def without_secrets(text: str, provider: Provider) -> str:
    """Cut the provider's credentials out of `text`. Hosts quote the key that they refuse, and a team's own host may
    give out keys that look like any word."""
    texts = (provider.api_key or "", *provider.headers.values())
    words = {word for text in texts for word in (text, *text.split()) if len(word) >= SHORTEST_SECRET}
    for word in sorted(words, key=len, reverse=True):
        for spelt in {word, json.dumps(word)[1:-1], word.replace("/", r"\/")}:
            text = text.replace(spelt, LEFT_OUT)
    return text


def body_without_secrets(body: bytes, provider: Provider) -> bytes:
    return without_secrets(body.decode(errors="surrogateescape"), provider).encode(errors="surrogateescape")


def without_quotes(text: str, prompts: Iterable[str | None]) -> str:
    """Cut out the parts of `text` that quote a prompt, whole or in part, in upper or lower case."""
    for prompt in prompts:
        if prompt and len(prompt.strip()) >= SHORTEST_PROMPT:
            text = _cut_quotes(text, prompt.strip())
    return text


def _cut_quotes(text: str, prompt: str) -> str:
    length = min(len(prompt), QUOTED)
    lowered = prompt.lower()
    quotes = {lowered[start : start + length] for start in range(len(lowered) - length + 1)}
    pieces, start = list[str](), 0
    said = text.lower() if len(text.lower()) == len(text) else text
    while start < len(text):
        end = start
        while end + length <= len(text) and said[end : end + length] in quotes:
            end += 1
        if end > start:
            start = end + length - 1
            pieces.append(LEFT_OUT)
        else:
            pieces.append(text[start])
            start += 1
    return "".join(pieces)
