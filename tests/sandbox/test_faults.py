"""The grammar of faults, and which request takes which."""

import pytest

from app.sandbox.faults import PLAIN, UNDRAWN, Fault, FaultBook, Faults, parse_fault, parse_faults, without_marks
from app.sandbox.order import Refusal


def names(faults: Faults) -> list[str]:
    return [fault.name for fault in faults.items]


def test_a_fault_has_a_name_an_argument_and_options() -> None:
    assert parse_fault("slow:2.5") == Fault("slow", "2.5")
    assert parse_fault("503:retry_after=7,shape=html") == Fault("503", "", {"retry_after": "7", "shape": "html"})
    assert parse_faults("pretty; stall:1") == (Fault("pretty"), Fault("stall", "1"))
    assert parse_faults("") == ()


@pytest.mark.parametrize("name", sorted(PLAIN | UNDRAWN))
def test_every_fault_without_an_argument_is_understood(name: str) -> None:
    assert name in Faults((parse_fault(name),))


@pytest.mark.parametrize(
    "text",
    ["nonsense", "200", "600", "slow", "slow:soon", "stall:-1", "dribble", "gzipbomb:big", "endless:x", "503:shape=x"],
)
def test_a_fault_that_nobody_knows_is_refused_with_what_is_known(text: str) -> None:
    with pytest.raises(Refusal, match=r"Known|needs|takes"):
        parse_fault(text)


def test_marks_in_a_prompt_ask_for_faults_and_are_not_drawn() -> None:
    prompt = "a fox [[fault:pretty]] in [[fault:stall:1]] snow"
    assert names(FaultBook().take("netmind", "", prompt)) == ["pretty", "stall"]
    assert without_marks(prompt) == "a fox in snow"


def test_a_mark_can_be_for_one_provider_only() -> None:
    book = FaultBook()
    assert names(book.take("netmind", "", "[[fault@netmind:503]]")) == ["503"]
    assert names(book.take("nebula", "", "[[fault@netmind:503]]")) == []


def test_a_mark_can_be_for_the_first_requests_with_this_prompt_at_this_provider() -> None:
    book = FaultBook()
    prompt = "a fox [[fault*2:503]]"
    assert [names(book.take("netmind", "", prompt)) for _ in range(3)] == [["503"], ["503"], []]
    assert names(book.take("nebula", "", prompt)) == ["503"]
    assert names(book.take("netmind", "", f"another {prompt}")) == ["503"]


def test_provider_and_count_can_be_given_together() -> None:
    book = FaultBook()
    prompt = "[[fault@nebula*1:503:retry_after=2]]"
    assert book.take("nebula", "", prompt).status == Fault("503", "", {"retry_after": "2"})
    assert names(book.take("nebula", "", prompt)) == []


def test_a_header_asks_for_faults_too() -> None:
    assert names(FaultBook().take("netmind", "cut; pretty", "[[fault:chunked]]")) == ["cut", "pretty", "chunked"]


def test_standing_faults_are_taken_one_after_the_other() -> None:
    book = FaultBook()
    book.stand("503", times=2)
    book.stand("cut;pretty", provider="nebula", times=1)
    taken = [names(book.take(provider, "", "")) for provider in ("netmind", "nebula", "netmind", "nebula", "nebula")]
    assert taken == [["503"], ["503"], [], ["cut", "pretty"], []]


def test_a_fault_without_a_count_stands_until_the_book_is_cleared() -> None:
    book = FaultBook()
    book.stand("503")
    assert [names(book.take("netmind", "", "")) for _ in range(3)] == [["503"]] * 3
    book.clear()
    assert names(book.take("netmind", "", "")) == []
