"""`docs/observability.md` names every metric with its labels, and no other."""

import re

from app.telemetry.metrics.drawings import OUTCOMES
from app.telemetry.metrics.families import Metrics
from tests.documentation.pages import page

PAGE = page("docs/observability.md")


def test_the_tables_have_every_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| `(imagegw_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
    told = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert told == {family.name: family.labels for family in Metrics().families}
    assert len(rows) == len(told)


def test_every_metric_that_is_named_exists() -> None:
    named = set(re.findall(r"\bimagegw_\w+", PAGE))
    assert named - {family.name for family in Metrics().families} == set()


def test_every_outcome_is_explained() -> None:
    table = PAGE.partition("| `outcome` | The request |")[2].partition("\n\n")[0]
    told = set(re.findall(r"^\| (.*) \|.*\|$", table, re.MULTILINE))
    words = {word for cell in told for word in re.findall(r"`(\w+)`", cell)}
    assert words >= set(OUTCOMES.values()) - {"interrupted"}
