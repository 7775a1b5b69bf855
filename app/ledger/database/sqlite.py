"""SQLite: one writer thread, which commits in groups, and one that waits for the disk. Knows nothing of money.

A transaction is an operation over the connection. The writer takes all operations that wait and commits them together;
if one of them fails, it rolls back and does each by itself, since an operation only depends on what it reads.

A commit is in the file's log (WAL) and survives the death of the process, but not a power cut. An operation that must
survive that too waits until the second thread has synced the log, for everything that was committed meanwhile at once.
The writer goes on: an admission takes a tenth of a millisecond, and a sync several.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from app.ledger.database import sqlite_money
from app.ledger.database.protocol import DatabaseUnavailable, Dialect, DuplicateRow, Full, Row
from app.ledger.values.drawings import (
    Admission,
    AttemptSent,
    Beginning,
    BudgetRefusal,
    Claim,
    Joined,
    LimitRefusal,
    Settlement,
    Ticket,
    Unfinished,
)

BUSY_SECONDS = 2.0  # that a writer waits for another process
INTERRUPT_SECONDS = 0.05  # between two interruptions of a statement that nobody waits for
MOST_IN_GROUP = 128  # operations
PREPARED = 8 * sqlite_money.MOST_ROWS  # statements: those of a group are as many as it may have rows
LONG_LOG = 2000  # rows: the second thread then moves the log's pages into the file
LONGEST_LOG = 256 * 1_048_576  # bytes: the writer does it itself, as under steady load the second thread cannot finish

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]


@dataclass(slots=True, eq=False)
class _Task:
    """An operation, and the future that waits for it."""

    operation: Operation[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    is_durable: bool  # waits for the disk
    rows: int  # that it may write, roughly
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Unsynced:
    """Operations that wait for the disk. `is_long`: the log is to be moved into the file too."""

    tasks: list[_Task]
    is_long: bool


class SqliteDatabase:
    """The database in one file. `aclose` ends its threads after all work that was handed to them."""

    dialect: Dialect = "sqlite"

    def __init__(self, path: Path) -> None:
        """Open the file, which must have the schema. Raises DatabaseUnavailable."""
        self._path = path
        self._connection: sqlite3.Connection | None = open_writer(path)
        self._round = list[_Task]()  # that were asked for in this round of the event loop
        self._tasks = SimpleQueue[list[_Task] | None]()
        self._unsynced = SimpleQueue[_Unsynced | None]()
        self._threads = [
            threading.Thread(target=self._write, name="ledger-writer", daemon=True),
            threading.Thread(target=self._sync, name="ledger-disk", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    async def aclose(self) -> None:
        self._hand_over()
        self._tasks.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    # --- the money path ---

    async def admit(
        self, admission: Admission, claims: Sequence[Claim], replica: str, now: int
    ) -> Ticket | LimitRefusal | BudgetRefusal:
        return await self._run(lambda db: sqlite_money.admit(db, admission, claims, replica, now))

    async def reserve(self, drawing_id: str, most: int, now: int, *, has_left: bool = False) -> bool | Full:
        return await self._run(lambda db: sqlite_money.reserve(db, drawing_id, most, now, has_left))

    async def sent(self, attempt: AttemptSent) -> bool:
        return await self._run(lambda db: sqlite_money.sent(db, attempt), is_durable=True)

    async def record(self, begun: Sequence[Beginning], ended: Sequence[Settlement], replica: str) -> None:
        rows = len(begun) + len(ended)
        await self._run(lambda db: sqlite_money.record(db, begun, ended, replica), is_durable=bool(begun), rows=rows)

    async def settle(self, settlement: Settlement) -> bool:
        return await self._run(lambda db: sqlite_money.settle(db, settlement))

    async def resolve(self, drawing_id: str, at: int, by: str, note: str, *, paid: bool) -> bool:
        return await self._run(lambda db: sqlite_money.resolve(db, drawing_id, at, by, note, paid))

    async def defer(self, admission: Admission, claims: Sequence[Claim], replica: str, at: int) -> None:
        await self._run(lambda db: sqlite_money.defer(db, admission, claims, replica, at))

    async def join(self, joined: Joined, replica: str) -> None:
        await self._run(lambda db: sqlite_money.join(db, joined, replica))

    async def unfinished(self, replica: str) -> Sequence[Unfinished]:
        return await self._run(lambda db: sqlite_money.unfinished(db, replica))

    # --- plain statements ---

    async def query(self, sql: str, parameters: Sequence[Any] = ()) -> Sequence[Row]:
        return await asyncio.to_thread(partial(_query, self._path, sql, parameters))

    async def stream(self, sql: str, parameters: Sequence[Any] = (), chunk: int = 1000) -> AsyncIterator[Sequence[Row]]:
        with contextlib.ExitStack() as stack:
            reader = await _in_thread(lambda: stack.enter_context(_reading(self._path)))
            cursor = await _in_thread(lambda: _guarded(lambda: reader.execute(sql, parameters)), reader.interrupt)
            while rows := await _in_thread(lambda: _guarded(lambda: cursor.fetchmany(chunk)), reader.interrupt):
                yield rows

    async def execute(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> Sequence[int]:
        return await self._run(lambda db: [db.execute(sql, parameters).rowcount for sql, parameters in statements])

    # --- the threads ---

    async def _run(self, operation: Operation[T], *, is_durable: bool = False, rows: int = 1) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._round.append(_Task(operation, future, loop, is_durable, rows))
        if len(self._round) == 1:
            loop.call_soon(self._hand_over)
        return await future

    def _hand_over(self) -> None:
        """Give the writer everything at once: waking a thread costs more than an operation."""
        if self._round:
            self._tasks.put(self._round)
            self._round = []

    def _write(self) -> None:
        logged = 0  # rows, since the log was last moved into the file
        while (first := self._tasks.get()) is not None:
            group, is_last = first, False
            with contextlib.suppress(Empty):
                while len(group) < MOST_IN_GROUP:
                    more = self._tasks.get_nowait()
                    if more is None:
                        is_last = True
                        break
                    group += more
            self._commit(group)
            unsynced = [task for task in group if task.is_durable and task.error is None]
            _tell([task for task in group if not task.is_durable or task.error is not None])
            logged += sum(task.rows for task in group)
            if unsynced or logged > LONG_LOG:
                self._unsynced.put(_Unsynced(unsynced, is_long=logged > LONG_LOG))
            if logged > LONG_LOG:
                logged = 0
                self._shorten_log()
            if is_last:
                break
        self._unsynced.put(None)
        if self._connection is not None:
            self._connection.close()

    def _commit(self, group: Sequence[_Task]) -> None:
        """Do the operations in one transaction, or each in one of its own if that fails."""
        try:
            if self._connection is None:
                self._connection = open_writer(self._path)
            self._transact(self._connection, group)
        except DatabaseUnavailable as error:
            for task in group:
                task.error = error
            self._reopen()
        except Exception as error:
            if len(group) == 1:
                group[0].error = error
                return
            for task in group:
                self._commit([task])

    def _transact(self, db: sqlite3.Connection, group: Sequence[_Task]) -> None:
        try:
            with _translated():
                db.execute("begin immediate")
                for task in group:
                    task.result = task.operation(db)
                db.execute("commit")
        except BaseException:
            if db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("rollback")
            raise

    def _reopen(self) -> None:
        """Drop the connection after a failure: the next operation opens the file anew."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _sync(self) -> None:
        """Sync the log for all that wait at once, and move it into the file when it is long."""
        is_last = False
        while not is_last and (first := self._unsynced.get()) is not None:
            tasks, is_long = first.tasks, first.is_long
            with contextlib.suppress(Empty):
                while True:
                    more = self._unsynced.get_nowait()
                    if more is None:
                        is_last = True
                        break
                    tasks += more.tasks
                    is_long |= more.is_long
            if tasks:
                try:
                    self._sync_log()
                except OSError as error:
                    for task in tasks:
                        task.error = DatabaseUnavailable(f"the disk failed: {error.strerror}")
                _tell(tasks)
            if is_long:
                with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(self._path)) as db:
                    db.execute("pragma wal_checkpoint(passive)")

    def _sync_log(self) -> None:
        descriptor = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _shorten_log(self) -> None:
        """Move the log into the file from the thread that writes, if it is too long: it cannot grow meanwhile."""
        with contextlib.suppress(OSError, sqlite3.Error):
            if self._connection is not None and Path(f"{self._path}-wal").stat().st_size > LONGEST_LOG:
                self._connection.execute("pragma wal_checkpoint(truncate)")


def _tell(tasks: Sequence[_Task]) -> None:
    """Hand results to the event loops that wait for them: one wake-up for each loop."""
    for loop in {task.loop for task in tasks}:
        own = [task for task in tasks if task.loop is loop]
        with contextlib.suppress(RuntimeError):  # it was closed
            loop.call_soon_threadsafe(_resolve, own)


def _resolve(tasks: Sequence[_Task]) -> None:
    for task in tasks:
        if task.future.done():  # its caller was cancelled
            continue
        if task.error is not None:
            task.future.set_exception(task.error)
        else:
            task.future.set_result(task.result)


# --- connections ---


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the file for writing, made if it is missing and readable by its user alone. Raises DatabaseUnavailable."""
    with _translated():
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise DatabaseUnavailable(f"{str(path)!r} cannot be opened ({error.strerror})") from error
        db = _connect(path)
        db.execute("pragma journal_mode = wal")
        db.execute("pragma synchronous = normal")
        db.execute("pragma wal_autocheckpoint = 0")
        db.execute(f"pragma journal_size_limit = {LONGEST_LOG}")
        db.execute("pragma foreign_keys = on")
        return db


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=PREPARED,
    )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with _translated():
        db = _connect(path)
        db.execute("pragma query_only = on")
    with contextlib.closing(db):
        yield db


def _query(path: Path, sql: str, parameters: Sequence[Any]) -> Sequence[Row]:
    with _reading(path) as db:
        return _guarded(lambda: db.execute(sql, parameters).fetchall())


async def _in_thread(work: Callable[[], T], interrupt: Callable[[], None] = lambda: None) -> T:
    """Do the work in a thread. A caller who is cancelled waits for its end all the same, and hastens it: whoever closes
    a connection while a thread is in it takes the process down."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            interrupt()  # again and again: it ends nothing that the thread has yet to begin
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future], timeout=INTERRUPT_SECONDS)
        future.exception()  # it is of no interest
        raise


def _guarded(work: Callable[[], T]) -> T:
    with _translated():
        return work()


_AWAY = (
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_PROTOCOL),
)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Raise SQLite's errors as those of the protocol. The error of a faulty statement stays as it is."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        unique = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
        if error.sqlite_errorcode in unique:
            raise DuplicateRow(str(error)) from error
        raise
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _AWAY:
            raise DatabaseUnavailable(str(error)) from error
        raise
