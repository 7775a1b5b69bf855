"""The account of a drawing, by which the gateway and a run report to the ledger. Protocols alone: they know neither
prices nor a database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from app.access.keyring import Key
from app.catalog.fitting import Fitted
from app.errors import ApiError
from app.images import ImageRequest, Size


class Account(Protocol):
    """The account of one call. It is settled exactly once: the first reported end counts."""

    @property
    def drawing_id(self) -> str: ...

    @property
    def held(self) -> int: ...

    @property
    def attempts(self) -> int:
        """The number of attempts that the ledger knows."""
        ...

    @property
    def lost(self) -> int:
        """The possible cost of attempts that were given up for another one."""
        ...

    @property
    def cost(self) -> int:
        """The cost of the drawing, once it is settled. Money is in nano-units."""
        ...

    @property
    def in_doubt(self) -> int:
        """The further cost that is in doubt, once it is settled."""
        ...

    @property
    def told(self) -> int | None:
        """The cost so far, or in all once it is settled. None: some of it has no price."""
        ...

    def expected(self, seen: Callable[[], Size | None]) -> int | None:
        """Return what all its images will cost, when the first of them arrives. None: only the end shows it. `seen`
        looks for the size of the picture that is arriving."""
        ...

    @property
    def is_priced(self) -> bool:
        """True if what was drawn so far has a price."""
        ...

    def is_open(self, index: int) -> bool:
        """True if the cost of an image may follow from the end of its answer, which has not come yet."""
        ...

    def cost_of(self, index: int, facts: Mapping[str, Any], usage: Mapping[str, Any] | None) -> int | None:
        """Return the cost of one image, by the facts and the usage that it came with. None: not known (yet)."""
        ...

    async def sent(self, fitted: Fitted) -> None:
        """Record that an attempt is about to leave; return once the ledger knows. Raises ApiError if it must not
        leave."""
        ...

    async def settle(self, error: ApiError | None) -> None:
        """Record the end of the work. Never raises, and goes on if the caller is cancelled."""
        ...

    def hand_on(self) -> None:
        """Leave the end to the next process, which takes the work up."""
        ...

    def give_back(self) -> Awaitable[None]:
        """Release the account of work that never began. Runs on in the background."""
        ...


class Accounts(Protocol):
    """Opens accounts, for requests that were admitted."""

    def open(self, drawing_id: str, held: int, request: ImageRequest, attempts: int = 0, lost: int = 0) -> Account:
        """Open the account of a call. `attempts` and `lost` are those of an earlier process's account, without the
        attempts that go on."""
        ...

    async def join(
        self,
        request_id: str,
        account: Account | None,
        request: ImageRequest,
        key: Key,
        model: str | None = None,
        end_user: str | None = None,
    ) -> None:
        """Record that a request was answered from an existing run. `model`: its own name, where the caller used an
        alias. `end_user`: the caller's `user`, as far as it may be kept. Never raises."""
        ...
