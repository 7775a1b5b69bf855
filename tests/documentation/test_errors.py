"""`docs/errors.md` has every code, type and status of the gateway's errors, and no others."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import httpx2
import openai
import pytest

from app.errors import ApiError
from tests.documentation.pages import EVERYTHING, ROOT, page, quoted, rows

PAGE = page("docs/errors.md")
BY_CODE = [
    (quoted(codes), {int(status) for status in statuses.split(", ")})
    for begin in ("## By code: the request", "## By code: the gateway")
    for codes, statuses, *_ in rows(PAGE, begin)
]
DOCUMENTED = {code: statuses for codes, statuses in BY_CODE for code in codes}
KINDS: list[type[ApiError]] = [ApiError, *ApiError.__subclasses__()]
# Codes that the source puts together from pieces.
COMPOSED = {"url_invalid", "url_expired"} | {
    f"{kind}_{side}" for kind in ("integer", "decimal") for side in ("below_min_value", "above_max_value")
}


@cache
def nodes() -> list[ast.AST]:
    """The syntax of all modules but the sandbox's."""
    paths = [path for path in (ROOT / "app").rglob("*.py") if "sandbox" not in path.relative_to(ROOT).parts]
    return [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


def calls() -> list[ast.Call]:
    return [node for node in nodes() if isinstance(node, ast.Call)]


def constants() -> set[str]:
    return {node.value for node in nodes() if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def find_keywords(keyword: str) -> Iterator[tuple[ast.Call, str]]:
    """The calls that state this keyword as text, and each text that it may be."""
    for call in calls():
        for value in (argument.value for argument in call.keywords if argument.arg == keyword):
            branches = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            yield from ((call, str(each.value)) for each in branches if isinstance(each, ast.Constant) and each.value)


def find_status(call: ast.Call) -> set[int]:
    """The status of an error that is made by name; none if the call makes another thing, or computes its status."""
    named = [argument.value for argument in call.keywords if argument.arg == "status"]
    if named:
        return {int(str(each.value)) for each in named if isinstance(each, ast.Constant)}
    statuses = {kind.__name__: kind("").status for kind in KINDS}
    return {statuses[call.func.id]} if isinstance(call.func, ast.Name) and call.func.id in statuses else set()


def test_every_code_of_the_source_is_documented_with_its_status() -> None:
    found = list(find_keywords("code"))
    assert {"upstream_timeout", "no_room", "model_not_found"} <= {code for _, code in found}
    for call, code in found:
        assert code in DOCUMENTED, code
        assert find_status(call) <= DOCUMENTED[code], code


def test_every_code_of_a_refused_parameter_is_documented() -> None:
    made = [call for call in calls() if isinstance(call.func, ast.Name) and call.func.id == "invalid"]
    codes = {arg.value for call in made for arg in call.args[2:3] if isinstance(arg, ast.Constant)}
    assert {"invalid_type", "empty_string"} <= codes
    assert {str(code) for code in codes} - set(DOCUMENTED) == set()


def test_every_code_that_is_documented_is_in_the_source() -> None:
    assert set(DOCUMENTED) - constants() - COMPOSED == set()
    assert set(DOCUMENTED) >= COMPOSED
    assert [code for codes, _ in BY_CODE for code in codes] == list(DOCUMENTED)  # none is there twice


def test_every_code_that_a_page_names_with_a_status_is_documented_with_it() -> None:
    named = re.findall(r"([0-9]{3}(?:(?:,| or) [0-9]{3})*) `([a-z_]+)`", EVERYTHING)
    assert ("504", "upstream_timeout") in named
    for statuses, code in named:
        assert {int(status) for status in re.findall(r"\d+", statuses)} <= DOCUMENTED.get(code, set()), code


def test_every_type_of_an_error_is_documented_and_no_other() -> None:
    types = {kind("").type for kind in KINDS} | {kind for _, kind in find_keywords("type")}
    assert {constant for constant in constants() if re.fullmatch(r"[a-z_]+_error", constant)} - types == {
        "internal_error"
    }
    assert {name for first, *_ in rows(PAGE, "## By type") for name in quoted(first)} == types


def test_every_status_of_a_code_is_in_the_table_of_statuses() -> None:
    cells = [first for first, *_ in rows(PAGE, "## By status")]
    listed = {int(number) for cell in cells for number in re.findall(r"\b\d{3}\b", cell)}
    rare = {416, 431, 501}  # no SDK asks for a range, or sends what they refuse
    assert {status for statuses in DOCUMENTED.values() for status in statuses} - listed == rare


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (int(number), quoted(raised)[0])
        for first, _, raised, _ in rows(PAGE, "## By status")
        for number in re.findall(r"\b\d{3}\b", first)
    ],
)
def test_the_sdk_raises_what_the_table_says(status: int, raised: str) -> None:
    envelope = {"error": {"message": "no", "type": None, "param": None, "code": None}}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, json=envelope))
    client = openai.OpenAI(
        base_url="http://gateway/v1",
        api_key="unused",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(transport=transport),
    )
    with client, pytest.raises(openai.APIStatusError) as caught:
        client.models.list()
    assert type(caught.value).__name__ == raised
