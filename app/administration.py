"""The composition of the administration: a process's objects, in the form that `app.api.administration` asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from app.access.key_text import Choose, new_key
from app.api.administration.book import NewKey
from app.api.administration.endpoint import DeploymentStatus, ProviderCheck
from app.catalog.deployments import Deployment, Model
from app.config.loading import Settings
from app.routing.health import Health, HealthSnapshot
from app.routing.queues import QueueSnapshot, Slots


@dataclass(frozen=True, slots=True)
class KeyMint:
    """Makes the texts of issued keys, and their digests under the pepper. `choose` picks a character at random."""

    pepper: bytes
    choose: Choose

    def __call__(self, *, is_admin: bool, id: str | None = None) -> NewKey:
        text = new_key(self.choose, is_admin=is_admin, id=id)
        return NewKey(text.id, text.text, text.digest(self.pepper))


_OUTCOMES: dict[str, Literal["listed", "unlisted", "connected", "refused", "unreachable"]] = {
    "LISTED": "listed",
    "UNLISTED": "unlisted",
    "CONNECTED": "connected",
    "REFUSED": "refused",
    "UNREACHABLE": "unreachable",
}
LONGEST_WORDS = 300  # characters of a provider's words


def see_deployments(models: Callable[[], Iterable[Model]], health: Health, queues: Slots) -> Sequence[DeploymentStatus]:
    """Return the state of each deployment of the models, as this process knows it."""
    pauses, waits = health.snapshot(), {each.deployment: each for each in queues.snapshot()}
    deployments = {each.name: each for model in models() for each in model.deployments}
    return [_seen(each, pauses, waits.get(name)) for name, each in sorted(deployments.items())]


def _seen(deployment: Deployment, health: Sequence[HealthSnapshot], queue: QueueSnapshot | None) -> DeploymentStatus:
    own = [each for each in health if each.name in (deployment.name, deployment.provider.name)]
    pauses: dict[str, float] = {each.reason: each.left for each in own if each.left > 0}
    return DeploymentStatus(
        provider=deployment.provider.name,
        model=deployment.model,
        is_paused=bool(pauses),
        pauses=pauses,
        failures=max((each.failures for each in own), default=0),
        running=queue.held if queue else 0,
        waiting=queue.waiting if queue else 0,
        max_concurrency=deployment.places,
        typical_seconds=deployment.profile.typical_seconds,
        lately_seconds=queue.seconds if queue else None,
        is_priced=deployment.profile.stated_price is not None,
    )


async def check_provider(settings: Settings, models: Sequence[Model], name: str) -> ProviderCheck | None:
    """Ask a provider for its list of models, as `image-gateway check --online` does. It draws nothing."""
    from app.commands import probe

    asked = [question for question in probe.questions(settings, models) if question.provider.name == name]
    if not asked:
        return None
    [found] = await probe.ask(asked)
    return ProviderCheck(
        outcome=_OUTCOMES[found.outcome.name],
        message="".join(character if character.isprintable() else " " for character in found.why)[:LONGEST_WORDS],
        has_credential=found.credential,
        models=found.count,
        not_listed=found.not_listed,
    )
