"""`image-gateway ledger`: prove that the book adds up, and resolve drawings in doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.book import me, now, run
from app.commands.options import CommandError, ConfigOption, note
from app.commands.times import write_time

if TYPE_CHECKING:
    from app.config.loading import Settings
    from app.ledger.book.registry import Registry
    from app.ledger.book.verification import Discrepancy

commands = typer.Typer(help="The book: drawings and their money.", no_args_is_help=True)


@commands.command()
def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Write the sums of the entries over what differs.")] = False,
    config: ConfigOption = None,
) -> None:
    """Prove that the book adds up. Exit with status 1 if something does not, or cannot be repaired."""

    async def work(_: Settings, registry: Registry) -> tuple[Sequence[Discrepancy], int]:
        from app.ledger.book import verification
        from app.ledger.database.protocol import DatabaseUnavailable

        repaired = await verification.repair(registry.database) if repair else ()
        found = await verification.verify(registry.database)
        try:
            await verification.write_down(registry.database, len(found), now())
        except DatabaseUnavailable as error:
            note(f"the metrics are not told: {error}")
        return found, len(repaired)

    left, repaired = run(config, work)
    if repaired:
        note(f"repaired: {repaired}")
    for line in _lines(left):
        typer.echo(line)
    if left:
        raise typer.Exit(1)
    note("the book adds up")


@commands.command()
def resolve(
    id: Annotated[str, typer.Argument(metavar="ID", help="The drawing that is in doubt.")],
    paid: Annotated[bool, typer.Option("--paid/--unpaid", help="Whether the provider's bill has it.")],
    config: ConfigOption = None,
) -> None:
    """Say whether a drawing that is in doubt was paid for."""

    async def work(_: Settings, registry: Registry) -> None:
        actor = me()
        by = f"{actor.kind}:{actor.id}"
        if not await registry.database.resolve(id, now(), by, "", paid=paid):
            raise CommandError(f"No drawing {id!r} is in doubt. It is resolved already, or has another id.")
        await registry.note(actor, "resolve", "drawing", id, {"paid": paid})
        note(f"drawing {id} counts as {'paid' if paid else 'unpaid'}")

    run(config, work)


def _lines(found: Sequence[Discrepancy]) -> Iterator[str]:
    from app.catalog.money import to_text

    for fault in found:
        period = "" if fault.starts_at is None else f" from {write_time(fault.starts_at)}"
        if fault.found is None or fault.right is None:
            yield f"{fault.kind} {fault.id}: {fault.note}"
            continue
        names = ("held", "spent", "in doubt")
        differs = [
            f"{name} is {to_text(is_now)}, and its entries say {to_text(right)}"
            for name, is_now, right in zip(names, fault.found, fault.right, strict=True)
            if is_now != right
        ]
        yield f"{fault.kind} {fault.id}{period}: {'; '.join(differs)}"
