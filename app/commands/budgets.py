"""`image-gateway budgets`: set, list and remove budgets."""

from __future__ import annotations

import json
import secrets
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from app.commands.book import me, now, run
from app.commands.options import CommandError, ConfigOption, JsonOption, note, split
from app.commands.projects import find_project
from app.commands.table import table
from app.commands.times import write_iso, write_time
from app.ledger.values.directory import THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.config.loading import Settings
    from app.ledger.book.registry import Registry
    from app.ledger.values.changes import BudgetState
    from app.ledger.values.directory import Budget, Directory

commands = typer.Typer(help="Budgets of projects, of keys and of everything.", no_args_is_help=True)
ID_LENGTH = 16  # behind `bud_`


class BudgetWindow(StrEnum):
    """How long a budget lasts."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


_Text = Optional[str]  # noqa: UP045
_THRESHOLDS = ",".join(map(str, THRESHOLDS))


@commands.command("set")
def set_budget(
    amount: Annotated[str, typer.Option(help="In the ledger's currency, like 50 or 0.25.")],
    window: Annotated[BudgetWindow, typer.Option(help="It starts anew with each; total: never.")],
    project: Annotated[_Text, typer.Option(help="What this project draws, by name or id.")] = None,
    key: Annotated[_Text, typer.Option(help="What this key draws, by id or name.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Whatever is drawn.")] = False,
    models: Annotated[Optional[list[str]], typer.Option(help="Globs of the models that count.")] = None,  # noqa: UP045
    timezone: Annotated[str, typer.Option(help="In which days, weeks and months begin.")] = "UTC",
    soft: Annotated[bool, typer.Option("--soft", help="Warn, and refuse nothing.")] = False,
    thresholds: Annotated[str, typer.Option(help="Per cent that are told once each.")] = _THRESHOLDS,
    config: ConfigOption = None,
) -> None:
    """Set a budget, and print its id. One that counts the same gets the new amount."""
    if sum((project is not None, key is not None, everything)) != 1:
        raise typer.BadParameter("say whose budget it is: --project, --key or --all, one of them")
    stated = _checked(amount=amount, window=str(window), timezone=timezone, hard=not soft, thresholds=thresholds)

    async def work(settings: Settings, registry: Registry) -> str:
        directory = await registry.directory()
        budget = _budget(stated, split(models), *_owner(settings, directory, project, key))
        same = next((known for known in directory.budgets if known.counted == budget.counted), None)
        if same is None:
            await registry.add_budget(budget, me())
            note("the budget is set; what its window has already drawn counts")
            return budget.id
        if same.source == "file":
            raise CommandError(f"The budget {same.id} stands in the configuration. Change it there.")
        changes = {"amount": budget.amount, "hard": budget.hard, "thresholds": budget.thresholds}
        await registry.update_budget(same.id, me(), **changes)
        note("the budget existed and has the new amount")
        return same.id

    typer.echo(run(config, work))


@commands.command("list")
def list_budgets(as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the budgets, and what is used of them now."""

    async def work(_: Settings, registry: Registry) -> Sequence[BudgetState]:
        return await registry.budget_states((await registry.directory()).budgets)

    states = sorted(run(config, work), key=lambda state: (state.budget.scope, state.budget.owner, state.budget.id))
    if as_json:
        typer.echo(json.dumps([_describe(state) for state in states], indent=2))
        return
    heads = ("id", "of", "models", "window", "amount", "spent", "in doubt", "held", "used", "starts anew", "kind")
    numbers = ("amount", "spent", "in doubt", "held", "used")
    typer.echo(table(heads, [_cells(state) for state in states], right=numbers) if states else "There is no budget.")


@commands.command()
def remove(
    id: Annotated[str, typer.Argument(metavar="ID", help="As `budgets list` shows it.")], config: ConfigOption = None
) -> None:
    """Remove a budget. What it counted stays in the book."""

    async def work(_: Settings, registry: Registry) -> None:
        found = next((budget for budget in (await registry.directory()).budgets if budget.id == id), None)
        if found is None:
            raise CommandError(f"There is no budget {id!r}. `image-gateway budgets list` shows all of them.")
        if found.source == "file":
            raise CommandError(f"The budget {id} stands in the configuration. Take it out there.")
        await registry.remove_budget(id, me())
        note(f"the budget {id} is removed")

    run(config, work)


def _checked(thresholds: str, **fields: Any) -> Any:
    """Return the settings of a budget, by the rules of the configuration. Raises typer.BadParameter."""
    from pydantic import ValidationError

    from app.config.budgets import BudgetSettings

    try:
        per_cent = [int(each) for each in split([thresholds])]
    except ValueError:
        raise typer.BadParameter("write whole numbers, like 50,80,100", param_hint="--thresholds") from None
    try:
        return BudgetSettings(thresholds=per_cent, **fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise typer.BadParameter(first["msg"], param_hint=f"--{first['loc'][0]}") from None


def _owner(settings: Settings, directory: Directory, project: str | None, key: str | None) -> tuple[Any, Any, str]:
    """Return the scope, the id and the name of the owner. Raises CommandError."""
    from app.config.inventory import key_names

    if project is not None:
        found = find_project(directory, project)
        if found is None:
            raise CommandError(f"There is no project {project!r}. `image-gateway projects create` makes one.")
        return "project", found.id, found.name
    if key is None:
        return "all", None, ""
    known = [(issued.id, issued.name) for issued in directory.keys.values()]
    known += key_names(settings).items()
    owners = [owner for owner in known if owner[0] == key] or [owner for owner in known if owner[1] == key]
    if len(owners) != 1:
        how_many = f"{len(owners)} keys are called" if owners else "There is no key"
        raise CommandError(f"{how_many} {key!r}. `image-gateway keys list` shows the id of each.")
    return "key", *owners[0]


def _budget(stated: Any, models: tuple[str, ...], scope: Any, scope_id: str | None, owner: str) -> Budget:
    from app.access.key_text import ALPHABET
    from app.catalog.money import to_nano
    from app.ledger.values.directory import Budget

    return Budget(
        id="bud_" + "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH)),
        scope=scope,
        scope_id=scope_id,
        amount=to_nano(stated.amount),
        window=stated.window,
        timezone=stated.timezone,
        models=() if models == ("*",) else models,
        since=now(),
        hard=stated.hard,
        thresholds=stated.thresholds,
        owner=owner,
    )


# --- what is shown ---


def _describe(state: BudgetState) -> dict[str, Any]:
    from app.catalog.money import to_text

    budget, period = state.budget, state.period
    return {
        "id": budget.id,
        "scope": budget.scope,
        "scope_id": budget.scope_id,
        "owner": budget.owner or None,
        "models": list(budget.models) or ["*"],
        "window": budget.window,
        "timezone": budget.timezone,
        "amount": to_text(budget.amount),
        "spent": to_text(state.spent),
        "in_doubt": to_text(state.in_doubt),
        "held": to_text(state.held),
        "starts_at": write_iso(period.starts_at),
        "ends_at": write_iso(period.ends_at),
        "hard": budget.hard,
        "thresholds": list(budget.thresholds),
        "source": budget.source,
    }


def _cells(state: BudgetState) -> tuple[str, ...]:
    from app.catalog.money import to_text

    budget = state.budget
    used = 100 * (state.spent + state.in_doubt) // budget.amount if budget.amount else 100  # of nothing, all is used
    return (
        budget.id,
        "everything" if budget.scope == "all" else f"{budget.scope} {budget.owner or budget.scope_id}",
        ",".join(budget.models) or "*",
        budget.window,
        *(to_text(nano) for nano in (budget.amount, state.spent, state.in_doubt, state.held)),
        f"{used} %",
        write_time(state.period.ends_at, "never"),
        "hard" if budget.hard else "soft",
    )
