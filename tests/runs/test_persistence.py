"""Runs in files: whole or not there, and the same after a restart."""

import asyncio
import hmac
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.fitting import Fitted
from app.errors import ApiError
from app.events import Done, Event, ImageBegins, ImageData, ImageEnds, ImageLink, Served, Sink
from app.gateway.account import Account
from app.gateway.call import Call, SubmittedJob
from app.images import Operation, Size
from app.ledger.database.protocol import Database, DatabaseUnavailable
from app.ledger.database.run_rows import RunRow, RunTable
from app.runs.entry import RunEntry
from app.runs.persistence import RunFiles
from app.runs.registry import RunRegistry
from app.runs.run_file import SentNote, StoredRun
from app.runs.state import State
from app.storage.recording import Meter, Recording, Span
from app.storage.spool import Spool
from tests.drawings import PICTURE, A, Clock, drawing, finish, paid, play, read, wanted

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def no_database() -> Database:
    raise DatabaseUnavailable("there is none")


class Registry(RunRegistry):
    """The registry of one process; the next one finds its rows."""

    def __init__(self, rows: dict[str, RunRow]) -> None:
        super().__init__(RunTable(no_database, "a"), b"pepper", dict(rows))
        self.rows = rows

    def put(self, row: RunRow) -> None:
        self.rows[row.id] = row

    def remove(self, id: str) -> None:
        self.rows.pop(id, None)


class Shelves:
    """Shelves on one directory and one table, as processes follow each other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wall, self.clock = Clock(), Clock()
        self.meter = Meter(1 << 30)
        self.rows = dict[str, RunRow]()
        self.wall.now = 1_800_000_000.0

    def new(self) -> RunFiles:
        self.meter = Meter(1 << 30)
        return RunFiles(self.directory, self.meter, self.wall, registry=Registry(self.rows))

    async def save(self, persistence: RunFiles, entry: RunEntry, ended: float = 0.0) -> None:
        """Save a run that ended so many seconds ago."""
        await persistence.save(entry)
        persistence.register(entry)
        assert entry.name is not None
        row = self.rows[entry.name]
        assert row.ended_at is not None
        self.rows[entry.name] = replace(row, ended_at=row.ended_at - int(ended * 1_000_000))

    async def entry(self, *steps: Any, **more: Any) -> RunEntry:
        """A run that has ended, and whose image data lies in a file."""
        drawn = drawing(*(steps or PICTURE), meter=self.meter, **more)
        drawn.run.recording.spill()
        await finish(drawn.run)
        return RunEntry(drawn.run, [drawn.run.id])

    def load(self, persistence: RunFiles, seconds: float = 600) -> list[RunEntry]:
        return list(persistence.load(seconds, self.clock))

    @property
    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    return Shelves(tmp_path)


def own(name: str) -> str:
    """As the shelf itself names its files."""
    stem, dot, suffix = name.partition(".")
    return sha256(stem.encode()).hexdigest()[:32] + dot + suffix


def join(events: list[Event]) -> list[Event]:
    """Image data put together, however it was cut."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        if isinstance(event, ImageData) and isinstance(last, ImageData):
            found[-1] = ImageData(last.base64 + event.base64)
        elif not (isinstance(event, ImageData) and not event.base64):
            found.append(event)
    return found


TEXT = st.text(max_size=10)
FACTS = st.dictionaries(TEXT, TEXT | st.integers() | st.lists(st.integers(), max_size=2), max_size=2)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Served, TEXT, TEXT, st.integers(1, 9), st.lists(TEXT, max_size=2).map(tuple), st.just(("size=1x1",))),
    st.builds(ImageBegins, st.integers(0, 9), st.none() | st.integers(0, 3)),
    st.binary(max_size=200).map(ImageData),
    st.builds(ImageLink, TEXT),
    st.builds(ImageEnds, st.none() | TEXT, st.none() | st.integers(), st.none() | FACTS, FACTS),
    st.builds(Done, st.none() | FACTS, FACTS),
)


@given(events=st.lists(EVENTS, max_size=20), on_disk=st.booleans())
def test_what_was_saved_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], on_disk: bool
) -> None:
    shelves = Shelves(tmp_path_factory.mktemp("runs"))

    async def there_and_back() -> list[list[Event]]:
        persistence = shelves.new()
        drawn = drawing(*events, meter=shelves.meter)
        if on_disk:
            drawn.run.recording.spill()
        await read(drawn.run)
        entry = RunEntry(drawn.run, ["run"])
        await persistence.save(entry)
        saved = await read(entry.run)
        assert (shelves.meter.memory, drawn.run.recording.in_memory) == (0, 0)
        entry.run.forget()
        assert (shelves.meter.memory, shelves.meter.disk) == (0, 0)
        [found] = shelves.load(shelves.new())
        loaded = await read(found.run)
        found.run.forget()
        assert (shelves.meter.disk, shelves.meter.growing) == (0, 0)
        return [saved, loaded]

    for found in asyncio.run(there_and_back()):
        assert join(found) == join(events)


async def test_a_run_is_known_again_by_all_that_matters(shelves: Shelves) -> None:
    persistence = shelves.new()
    request = wanted(n=2, size=Size(64, 32), stream=True, raw=False, parameters={"quality": "high", "seed": 7})
    entry = await shelves.entry(request=request, id="first")
    entry.run.idempotency_key, entry.ids, entry.run.fingerprint = "k", ["first", "second"], b"\x01\x02"
    await persistence.save(entry)
    entry.run.forget()
    [found] = shelves.load(shelves.new())
    run = found.run
    assert (run.idempotency_key, found.ids, run.id) == ("k", ["first", "second"], "first")
    assert (run.fingerprint, run.created, run.call.key.name, run.state) == (
        b"\x01\x02",
        entry.run.created,
        A.name,
        State.FINISHED,
    )
    known = run.call.request
    assert (known.operation, known.model, known.n, known.stream) == (Operation.GENERATIONS, "flux", 2, True)
    assert (known.size, known.parameters) == (Size(64, 32), {"quality": "high"})
    run.forget()


async def test_nothing_of_the_request_but_its_shape_is_written_and_only_for_the_user(shelves: Shelves) -> None:
    entry = await shelves.entry(request=wanted("an unmistakable prompt", parameters={"user": "somebody"}))
    await shelves.new().save(entry)
    [file] = shelves.files
    assert b"unmistakable" not in file.read_bytes()
    assert b"somebody" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    entry.run.forget()


async def test_an_error_is_told_again(shelves: Shelves) -> None:
    entry = await shelves.entry(paid())
    await shelves.new().save(entry)
    entry.run.forget()
    [found] = shelves.load(shelves.new())
    error = found.run.recording.error
    assert error is not None
    assert (error.message, error.status, error.should_retry, error.perhaps_paid) == ("cut", 502, False, True)
    assert error.envelope() == paid().envelope()
    found.run.forget()


async def test_what_is_too_old_half_or_garbled_is_removed(shelves: Shelves) -> None:
    persistence = shelves.new()
    entry = await shelves.entry()
    await shelves.save(persistence, entry)
    [file] = shelves.files
    whole = file.read_bytes()
    entry.run.forget()
    file.unlink()
    for name, content in {
        "empty.run": b"",
        "cut.run": whole[:-1],
        "long.run": whole + b"x",
        "headless.run": whole[:20],
        "other.run": whole.replace(b"ImageBegins", b"ImageBegans"),
        "list.run": (2).to_bytes(8, "big") + b"[]",
        "endless.run": b"\xff" * 8 + whole[8:],
        "large.run": (1 << 44).to_bytes(8, "big") + whole[8:],
        "deep.run": (200_000).to_bytes(8, "big") + b"[" * 200_000,
        "nameless.run": whole.replace(b'"ids": ["', b'"ids": [], "s": ["'),
        "odd.run": whole.replace(b'"events": [', b'"events": [1.5, '),
        "left.half": whole,
        "old.run": whole,
        "good.run": whole,
    }.items():
        (shelves.directory / own(name)).write_bytes(content)
    [row] = shelves.rows.values()
    for name, age in (("old", 601), ("good", 1)):
        shelves.rows[own(f"{name}.run")[:32]] = replace(row, ended_at=int((shelves.wall.now - age) * 1e6))
    persistence = shelves.new()
    [found] = shelves.load(persistence)
    assert [path.name for path in shelves.files] == [own("good.run")]
    assert await read(found.run) == list(PICTURE)
    found.run.forget()
    assert shelves.meter.disk == 0


async def test_foreign_names_do_not_prevent_the_start(shelves: Shelves, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = ["lost+found", ".snapshot", "backup.run", own("a.run"), own("b.half")]
    for name in foreign:
        (shelves.directory / name).mkdir(mode=0)
    dangling, theirs = shelves.directory / own("c.run"), shelves.directory / own("d.run")
    dangling.symlink_to("nowhere")
    (shelves.directory / "notes.txt").write_bytes(b"mine")
    theirs.write_bytes(b"another user's")
    opened = Path.open

    def refused(path: Path, *rest: Any, **more: Any) -> Any:
        if path == theirs:  # root, as whom tests may run, can read everything
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **more)

    persistence, entry = shelves.new(), await shelves.entry()
    await persistence.save(entry)
    before = shelves.files
    monkeypatch.setattr(Path, "open", refused)
    [found] = shelves.load(shelves.new())
    assert shelves.files == before
    for each in (entry, found):
        each.run.forget()


async def test_a_clock_that_is_ahead_at_the_start_does_not_sweep_all_runs_at_once(shelves: Shelves) -> None:
    persistence = shelves.new()
    for age, id in ((10, "younger"), (300, "older")):
        entry = await shelves.entry(id=id)
        await shelves.save(persistence, entry, age)
        entry.run.forget()
    began = shelves.wall.now
    for later, ages in ((1_000_000, (290, 0)), (1_000_200, (490, 200)), (1_000_400, (400,))):
        shelves.wall.now = began + later
        found = shelves.load(shelves.new())
        assert [shelves.clock() - (entry.run.ended_at or 0) for entry in found] == pytest.approx(ages, abs=0.1)
        for entry in found:
            entry.run.forget()


async def test_a_clock_that_was_ahead_keeps_no_run_longer(shelves: Shelves) -> None:
    entry = await shelves.entry()
    await shelves.save(shelves.new(), entry, -86_400)
    entry.run.forget()
    [found] = shelves.load(shelves.new())
    assert found.run.ended_at == shelves.clock.now
    [row] = shelves.rows.values()
    assert row.ended_at == shelves.wall.now * 1_000_000
    found.run.forget()


async def test_the_newest_comes_last_with_the_time_that_it_has_left(shelves: Shelves) -> None:
    persistence = shelves.new()
    for age, id in ((10, "younger"), (300, "older")):
        entry = await shelves.entry(id=id)
        await shelves.save(persistence, entry, age)
        entry.run.forget()
    found = shelves.load(shelves.new())
    assert [entry.run.id for entry in found] == ["older", "younger"]
    ages = [shelves.clock() - (entry.run.ended_at or 0) for entry in found]
    assert ages == pytest.approx([300, 10], abs=0.1)


async def test_saving_twice_at_once_writes_one_file(shelves: Shelves) -> None:
    persistence, entry = shelves.new(), await shelves.entry()
    await asyncio.gather(*(persistence.save(entry) for _ in range(4)))
    assert len(shelves.files) == 1
    entry.run.forget()


async def test_no_file_is_open_while_nobody_reads(shelves: Shelves) -> None:
    persistence, entry = shelves.new(), await shelves.entry()
    await persistence.save(entry)
    stored = entry.file
    assert isinstance(stored, StoredRun)
    assert not stored.is_open
    assert await read(entry.run) == list(PICTURE)
    assert stored.is_open
    stored.rest()
    assert not stored.is_open
    assert await read(entry.run) == list(PICTURE)
    entry.run.forget()
    assert not stored.is_open


async def test_what_somebody_has_had_is_known_as_such_by_the_next_process(shelves: Shelves) -> None:
    persistence = shelves.new()
    for number in range(2):
        entry = await shelves.entry()
        entry.run.idempotency_key = str(number)
        await shelves.save(persistence, entry)
        if number:
            entry.run.deliver()
            persistence.register(entry)
        entry.run.forget()
    found = {entry.run.idempotency_key: entry for entry in shelves.load(shelves.new())}
    assert {key: entry.run.state.is_delivered for key, entry in found.items()} == {"0": False, "1": True}
    for entry in found.values():
        assert await read(entry.run) == list(PICTURE)
        assert entry.file
        entry.file.remove()
        entry.run.forget()
    assert shelves.files == []


async def test_what_is_removed_can_be_read_to_its_end_but_not_by_the_next_process(shelves: Shelves) -> None:
    persistence, entry = shelves.new(), await shelves.entry()
    await persistence.save(entry)
    assert isinstance(entry.file, StoredRun)
    entry.file.remove()
    entry.file.rest()
    entry.file.remove()
    assert shelves.files == []
    assert await read(entry.run) == list(PICTURE)
    entry.run.forget()
    assert not entry.file.is_open


async def test_without_room_on_disk_it_stays_with_the_process_and_leaves_no_half_file(shelves: Shelves) -> None:
    entry = await shelves.entry()
    told = list[tuple[str, Exception]]()
    persistence = RunFiles(
        shelves.directory, shelves.meter, shelves.wall, lambda: "no/such/directory", lambda *one: told.append(one)
    )
    await persistence.save(entry)
    assert entry.file is None
    assert [(id, type(error)) for id, error in told] == [("run", FileNotFoundError)]
    assert await read(entry.run) == list(PICTURE)

    def cut(span: Span) -> bytes:
        raise OSError(28, f"No space left on device for {span}")

    entry.run.recording.read = cut  # type: ignore[method-assign]
    await shelves.new().save(entry)
    assert shelves.files == []
    assert entry.file is None
    entry.run.forget()


async def test_what_cannot_be_written_as_json_is_lost_with_the_process_only(shelves: Shelves) -> None:
    entry = await shelves.entry(*PICTURE, Done({"cost": object()}))
    await shelves.new().save(entry)
    assert (shelves.files, entry.file) == ([], None)
    entry.run.forget()


async def test_the_head_tells_what_the_file_holds(shelves: Shelves) -> None:
    entry = await shelves.entry()
    await shelves.new().save(entry)
    [file] = shelves.files
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "big")
    assert [
        event["kind"] if isinstance(event, dict) else event for event in json.loads(content[8:][:length])["events"]
    ] == [
        "Served",
        "ImageBegins",
        8,
        "ImageEnds",
    ]
    assert content[8 + length :] == b"aGVsbG8="
    with pytest.raises(ValueError, match="has ended"):
        StoredRun(file, 8 + length).write(b"more")
    entry.run.forget()


# --- what was sent when the process was killed ---


async def named(shelves: Shelves, *steps: Any) -> RunEntry:
    """A run with an idempotency key that has not begun."""
    drawn = drawing(*(steps or PICTURE), meter=shelves.meter, idempotency_key="k")
    return RunEntry(drawn.run, [drawn.run.id])


class Book:
    """An account that is asked for nothing but its id."""

    drawing_id, held, cost, attempts, lost = "drawing-1", 0, 0, 0, 0

    async def sent(self, fitted: Fitted) -> None:
        raise AssertionError(fitted)

    async def settle(self, error: ApiError | None) -> None:
        pass

    def hand_on(self) -> None:
        raise AssertionError

    async def give_back(self) -> None:
        raise AssertionError


async def drop(entry: RunEntry) -> None:
    """End a run that was not driven, and close it."""
    entry.run.abandon()
    await entry.run.wait_until_over()
    entry.run.forget()


async def test_what_was_sent_is_told_to_the_next_process_for_as_long_as_an_ended_run(shelves: Shelves) -> None:
    entry = await named(shelves)
    entry.note = shelves.new().note(entry)
    await entry.note.written()
    [file] = shelves.files
    assert file.suffix == ".sent"
    assert file.stat().st_mode & 0o777 == 0o600
    shelves.new().register(entry)
    shelves.wall.now += 86_400  # however long the drawing took, or the gateway stood still
    [found] = shelves.load(shelves.new())
    error = found.run.recording.error
    assert error is not None
    assert (error.status, error.code, error.should_retry, error.perhaps_paid) == (504, "run_interrupted", False, True)
    assert (found.run.idempotency_key, found.ids, found.run.fingerprint) == ("k", ["run"], entry.run.fingerprint)
    assert entry.run.fingerprint is not None
    assert (found.run.ended_at, found.run.state) == (shelves.clock.now, State.UNCERTAIN)
    found.run.forget()
    persistence = shelves.new()
    shelves.wall.now += 300
    [found] = shelves.load(persistence)  # a second restart does not begin to count anew
    assert found.run.ended_at == pytest.approx(shelves.clock.now - 300, abs=1)
    found.run.forget()
    await drop(entry)


async def test_a_run_that_is_saved_takes_the_place_of_its_note(shelves: Shelves) -> None:
    persistence, entry = shelves.new(), await named(shelves)
    entry.note = persistence.note(entry)
    await finish(entry.run)
    await persistence.save(entry)
    assert entry.note is None
    [file] = shelves.files
    assert file.suffix == ".run"
    file.with_suffix(".sent").write_bytes(file.read_bytes())  # as if killed before the note was removed
    [found] = shelves.load(shelves.new())
    assert await read(found.run) == list(PICTURE)
    assert shelves.files == [file]
    for each in (entry, found):
        each.run.forget()


async def test_a_note_that_is_removed_while_it_is_written_leaves_nothing(shelves: Shelves) -> None:
    entry = await named(shelves)
    note = shelves.new().note(entry)
    waiting = asyncio.create_task(note.written())
    await asyncio.sleep(0)
    waiting.cancel()
    note.remove()
    await note.written()
    assert shelves.files == []
    await drop(entry)


async def test_half_a_note_says_that_nothing_was_sent(shelves: Shelves) -> None:
    (shelves.directory / own("half.sent")).write_bytes((400).to_bytes(8, "big") + b'{"ids"')
    assert shelves.load(shelves.new()) == []
    assert shelves.files == []


async def test_a_full_disk_keeps_nothing_from_being_sent_and_a_note_stays_where_a_run_finds_no_room(
    shelves: Shelves,
) -> None:
    entry = await named(shelves)
    told = list[str]()
    persistence = RunFiles(
        shelves.directory, shelves.meter, shelves.wall, lambda: "no/such/directory", lambda id, _: told.append(id)
    )
    await persistence.note(entry).written()
    assert (shelves.files, told) == ([], ["run"])
    persistence = shelves.new()
    entry.note = persistence.note(entry)
    await finish(entry.run)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    await entry.note.written()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", full)
        await persistence.save(entry)
    assert [file.suffix for file in shelves.files] == [".sent"]
    entry.run.forget()


JOB = SubmittedJob("bfl/flux", 0, {"id": "1", "polling_url": "https://host.test/1"})

# --- rows ---


async def test_a_row_names_the_run_its_key_and_its_drawing_and_no_text_of_the_caller_but_ids(shelves: Shelves) -> None:
    entry = await named(shelves)
    persistence = shelves.new()
    entry.note = persistence.note(entry)
    entry.drawing_id = "drawing-1"
    await entry.note.written()
    persistence.register(entry)
    [file] = shelves.files
    row = shelves.rows[file.stem]
    assert (row.state, row.ended_at) == ("sent", None), "before the first request leaves"
    assert (row.key_id, row.names, row.drawing_id) == (A.id, ("run",), "drawing-1")
    assert row.idempotency_digest == hmac.digest(b"pepper", b"k", "sha256")
    assert entry.run.fingerprint is not None
    assert row.fingerprint == hmac.digest(b"pepper", entry.run.fingerprint, "sha256")
    await finish(entry.run)
    await shelves.save(persistence, entry)
    row = shelves.rows[file.stem]
    assert (row.state, row.ended_at) == ("finished", int(shelves.wall.now * 1_000_000))
    assert entry.file is not None
    entry.file.remove()
    persistence.register(entry)
    assert shelves.rows == {}
    entry.run.forget()


async def test_a_run_without_a_file_has_no_row(shelves: Shelves) -> None:
    entry = await shelves.entry()
    shelves.new().register(entry)
    assert shelves.rows == {}
    entry.run.forget()


async def test_a_row_outlives_restarts_with_the_drawing_of_its_run(shelves: Shelves) -> None:
    drawn = drawing(*PICTURE, meter=shelves.meter)
    drawn.run.call.account = cast("Account", Book())
    await finish(drawn.run)
    entry = RunEntry(drawn.run, ["run"])
    await shelves.save(shelves.new(), entry)
    entry.run.forget()
    before = dict(shelves.rows)
    assert [row.drawing_id for row in before.values()] == ["drawing-1"]
    [found] = shelves.load(shelves.new())
    assert shelves.rows == before
    found.run.forget()


ROW_STATES = [state.name.lower() for state in State]


@given(
    state=st.none() | st.sampled_from(ROW_STATES),
    ended=st.none() | st.floats(-1e6, 1e6),
    kind=st.sampled_from(["images", "error", "note", "job"]),
)
def test_whatever_a_row_says_no_drawing_is_lost_or_taken_for_unpaid(
    tmp_path_factory: pytest.TempPathFactory, state: str | None, ended: float | None, kind: str
) -> None:
    shelves = Shelves(tmp_path_factory.mktemp("runs"))

    async def run() -> tuple[State, bool]:
        persistence = shelves.new()
        entry = await named(shelves, *([paid()] if kind == "error" else PICTURE))
        entry.note = persistence.note(entry)
        await entry.note.written()
        if kind == "job":
            await entry.note.add(JOB)
        if kind in ("images", "error"):
            await finish(entry.run)
            await persistence.save(entry)
        persistence.register(entry)
        assert entry.name is not None
        row = shelves.rows.pop(entry.name)
        if state is not None:
            at = None if ended is None else int((shelves.wall.now + ended) * 1_000_000)
            shelves.rows[entry.name] = replace(row, state=state, ended_at=at)
        [found], _ = take_up(shelves)
        has_all = kind in ("error", "note") or await read(found.run) == list(PICTURE)
        known = (State.SENT if kind == "job" else found.run.state), has_all
        found.run.forget()
        if kind in ("note", "job"):
            await drop(entry)
        else:
            entry.run.forget()
        return known

    found, has_all = asyncio.run(run())
    assert has_all
    expected = {"error": {State.UNCERTAIN}, "note": {State.UNCERTAIN}, "job": {State.SENT}}
    assert found in expected.get(kind, {State.FINISHED, State.DELIVERED})
    assert kind != "images" or (found is State.DELIVERED) == (state in ("delivered", "returned"))


async def test_without_any_row_runs_are_there_in_the_order_in_which_they_began(shelves: Shelves) -> None:
    for created, id in ((30, "third"), (10, "first"), (20, "second")):
        entry = await shelves.entry(id=id)
        entry.run.created = created
        await shelves.new().save(entry)
        entry.run.forget()
    assert shelves.rows == {}
    found = shelves.load(shelves.new())
    assert [entry.run.id for entry in found] == ["first", "second", "third"]
    assert {entry.run.ended_at for entry in found} == {shelves.clock.now}
    assert len(shelves.rows) == 3, "the next process learns when they ended"
    for entry in found:
        entry.run.forget()


# --- jobs that a provider has accepted ---


def take_up(
    shelves: Shelves, *steps: Any
) -> tuple[list[RunEntry], list[tuple[str, dict[str, Any], list[SubmittedJob]]]]:
    """Load the runs in a new process, which draws `steps` for the jobs that it finds."""
    resumed = list[tuple[str, dict[str, Any], list[SubmittedJob]]]()

    async def resume(call: Call, jobs: Sequence[SubmittedJob], sink: Sink) -> None:
        resumed.append((call.id, dict(call.request.parameters), list(jobs)))
        await play(steps or PICTURE, sink)

    files = shelves.new()
    entries = files.load(
        600, shelves.clock, resume=resume, recording=lambda: Recording(lambda: Spool(0), shelves.meter, 1 << 20)
    )
    return list(entries), resumed


async def test_a_run_with_a_job_is_under_way_again_in_the_next_process(shelves: Shelves) -> None:
    request = wanted("an unmistakable prompt", parameters={"output_format": "webp", "user": "u"})
    drawn = drawing(*PICTURE, request=request, meter=shelves.meter, idempotency_key="k")
    entry = RunEntry(drawn.run, ["run", "again"])
    entry.note = shelves.new().note(entry)
    await entry.note.add(JOB)
    [file] = shelves.files
    assert b"unmistakable" not in file.read_bytes()
    shelves.new().register(entry)
    shelves.wall.now += 86_400  # the drawing may have begun long ago
    [found], resumed = take_up(shelves)
    assert (found.run.state, found.ids, found.run.idempotency_key) == (State.SENT, ["run", "again"], "k")
    assert found.run.fingerprint == entry.run.fingerprint is not None
    assert resumed == [], "nothing is asked before the gateway serves"
    assert await read(found.run) == list(PICTURE)
    assert resumed == [("run", {"output_format": "webp"}, [JOB])]
    assert isinstance(found.note, SentNote)
    await shelves.new().save(found)
    assert [file.suffix for file in shelves.files] == [".run"]
    found.run.forget()
    await drop(entry)


async def test_a_job_that_is_taken_up_and_killed_again_is_found_by_the_process_after(shelves: Shelves) -> None:
    entry = await named(shelves)
    entry.note = shelves.new().note(entry)
    await entry.note.add(JOB)
    second = SubmittedJob("bfl/flux", 1, {"id": "2"})
    await entry.note.add(second)
    for _ in range(2):
        [found], resumed = take_up(shelves)
        await read(found.run)
        assert [jobs for _, _, jobs in resumed] == [[JOB, second]]
        found.run.forget()
    await drop(entry)


async def test_a_run_without_a_job_ends_as_interrupted(shelves: Shelves) -> None:
    entry = await named(shelves)
    entry.note = shelves.new().note(entry)
    await entry.note.written()
    [found], resumed = take_up(shelves)
    assert (found.run.state, resumed) == (State.UNCERTAIN, [])
    found.run.forget()
    await drop(entry)


async def test_a_note_that_cannot_take_a_job_stays_as_it_was(shelves: Shelves) -> None:
    entry = await named(shelves)
    reported = list[str]()
    entry.note = RunFiles(
        shelves.directory, shelves.meter, shelves.wall, report=lambda id, _: reported.append(id)
    ).note(entry)
    await entry.note.written()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", full)
        await entry.note.add(JOB)
    assert reported == ["run"]
    [found], resumed = take_up(shelves)
    assert (found.run.state, resumed) == (State.UNCERTAIN, [])
    found.run.forget()
    await drop(entry)


# --- files of an earlier version ---


def rewrite_as_earlier(file: Path) -> None:
    """Write the head as the version did that knew no jobs and called the fingerprint `identity`."""
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "big")
    said = json.loads(whole[8 : 8 + length])
    said["identity"] = said.pop("fingerprint")
    del said["jobs"]
    head = json.dumps(said).encode()
    file.write_bytes(len(head).to_bytes(8, "big") + head + whole[8 + length :])


async def test_a_run_in_a_file_of_an_earlier_version_is_known_again(shelves: Shelves) -> None:
    entry = await shelves.entry(idempotency_key="k")
    await entry.run.identify()
    fingerprint = entry.run.fingerprint
    await shelves.new().save(entry)
    entry.run.forget()
    [file] = shelves.files
    rewrite_as_earlier(file)
    [found] = shelves.load(shelves.new())
    assert (found.run.state, found.run.fingerprint) == (State.FINISHED, fingerprint)
    found.run.forget()


async def test_a_note_of_an_earlier_version_still_keeps_its_run_from_being_drawn_again(shelves: Shelves) -> None:
    entry = await named(shelves)
    entry.note = shelves.new().note(entry)
    await entry.note.written()
    [file] = shelves.files
    rewrite_as_earlier(file)
    [found] = shelves.load(shelves.new())
    assert (found.run.state, found.run.fingerprint) == (State.UNCERTAIN, entry.run.fingerprint)
    await drop(entry)
    found.run.forget()
