"""The composition root: settings → the objects that serve, opened and closed together. Alone in knowing them all."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from app import dialects
from app.access.admission import Admission
from app.access.body_gate import BodyGate
from app.access.keyring import ANONYMOUS, IssuedKeys, Keyring
from app.access.wrong_keys import WrongKeys
from app.accounting.accounts import Accounts
from app.administration import KeyMint, check_provider, see_deployments
from app.adoption import Adoption
from app.api import runtime as api
from app.api.administration.endpoint import Administration
from app.api.metrics import MetricsApp
from app.api.requests.body import Limits as BodyLimits
from app.api.requests.remote_images import upload
from app.api.web_pages import PageRules
from app.catalog.models import Catalog
from app.config import inventory
from app.config.loading import Settings
from app.config.redacted import without_secrets
from app.config.simulated import with_sandbox
from app.events import ImageLink
from app.gateway.delivery import Delivery
from app.gateway.exchanges import Exchanges
from app.gateway.gateway import Gateway, Policy
from app.imaging.workers import Workers
from app.ledger.book.book import Book
from app.ledger.book.outbox import Outbox
from app.ledger.book.price_list import PriceList
from app.ledger.database.replicas import Replica
from app.ledger.database.run_rows import RunTable
from app.ledger.ledger import Ledger, open_ledger
from app.ledger.ledger import Policy as LedgerPolicy
from app.microseconds import to_microseconds
from app.routing.failover import RetryBudget
from app.routing.health import Health
from app.routing.queues import Slots
from app.runs.entry import RunEntry
from app.runs.persistence import Resume, RunFiles
from app.runs.registry import open_registry
from app.runs.retention import Retention, Room
from app.runs.run import RunObserver
from app.server.listener import listen
from app.storage.data_dir import open_data_dir
from app.storage.disk import DiskStore
from app.storage.full_disk import LEAST_FREE, DiskAlarm, free_bytes, is_full, no_space
from app.storage.recording import Meter, Recording
from app.storage.secret import API_KEYS, LINKS, REPLICAS, RUNS
from app.storage.signed_urls import Signer, file_name
from app.storage.spool import KEPT_FILES, Budget, Files, Spool, Uploads
from app.telemetry.alerts import BudgetAlerts
from app.telemetry.logs import AttemptLog, Log, RunLog
from app.telemetry.metrics.drawings import Drawings
from app.telemetry.metrics.exposition import Exposition, watch_loop
from app.telemetry.metrics.families import Metrics
from app.telemetry.metrics.ledger import MeteredLedger
from app.telemetry.metrics.requests import Requests
from app.telemetry.metrics.state import Sources, State
from app.upstream.client import Upstream
from app.upstream.downloads import Fetcher
from app.upstream.transport import AiohttpTransport, Connections
from app.upstream.webhooks import Webhook

if TYPE_CHECKING:
    from app.telemetry.traces import Traces

CLEANING_SECONDS = 30.0
TEXT_IN_MEMORY = 128 * 1_048_576  # bytes of all requests under way, and of small pictures up to half of it
RECORDED_IN_MEMORY = 32 * 1_048_576  # bytes of one run; beyond, its images lie on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources(api.Resources):
    """The objects of the process, those included that only this module knows."""

    log: Log
    sandbox_url: str | None
    spools: Files
    upload_budget: Budget
    transport: AiohttpTransport
    fetcher: Fetcher
    meter: Meter
    health: Health
    queues: Slots
    retry_budget: RetryBudget
    ledger: Ledger
    price_list: PriceList
    accounts: Accounts
    book: Book
    mint: KeyMint
    issued_keys: IssuedKeys
    wrong_keys: WrongKeys
    adoption: Adoption
    drawings: Drawings
    traces: Traces | None  # None: OpenTelemetry's variables ask for none
    requests: Requests
    metered_ledger: MeteredLedger
    metrics_state: State
    exposition: Exposition


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime(api.Runtime):
    """A reload replaces it at once."""

    resources: Resources
    settings: Settings
    page_rules: PageRules  # while no caller needs a key


def new_log(settings: Settings) -> Log:
    return Log(settings.logging.format, requests=settings.logging.requests)


@asynccontextmanager
async def open_resources(settings: Settings, log: Log, resume: Resume) -> AsyncIterator[Resources]:
    """Open everything that serves, until the block is left. `resume` takes up the jobs that an earlier process
    submitted. Raises DataDirError, SchemaError and ForeignSecret."""
    async with AsyncExitStack() as stack:
        sandbox_url, path = None, settings.data_dir
        if settings.sandbox:
            from app.sandbox.server import Sandbox  # with a real configuration it is never loaded

            sandbox_url = (await stack.enter_async_context(Sandbox())).base_url
            path = Path(stack.enter_context(TemporaryDirectory(prefix="image-gateway-", ignore_cleanup_errors=True)))
        data = stack.enter_context(open_data_dir(path, settings.stated_secret))
        files, runs, meter = settings.files, settings.runs, Meter(settings.runs.memory_bytes)
        clock = steady(time.time, time.monotonic)
        alarm = DiskAlarm(log.warning, time.monotonic)
        spools = Files(str(data.folder("spool")), KEPT_FILES, partial(alarm.failed, "spool"))
        stack.callback(spools.close)

        def recording() -> Recording:
            return Recording(lambda: Spool(0, spools), meter, RECORDED_IN_MEMORY)

        metrics = Metrics()

        def unkept(run_id: str, error: Exception) -> None:
            metrics.runs_lost.add("unkept")
            _report_unkept(log, alarm, run_id, error)

        persistence = RunFiles(data.folder("runs"), meter, report=unkept)
        database = settings.database
        ledger = await stack.enter_async_context(
            open_ledger(
                database.url.get_secret_value() if database.url else None,
                data.path,
                policy=LedgerPolicy(settings.ledger.unpriced, settings.ledger.when_down, settings.ledger.in_doubt_days),
                clock=time.time,
                warn=log.warning,
                replica=Replica(data.name, data.secret.derive(REPLICAS).hex()),
                migrate=database.migrate,
                resumed=persistence.drawings_under_way(),
            )
        )
        pepper = data.secret.derive(API_KEYS)
        issued_keys = IssuedKeys(pepper, lambda: ledger.directory, time.time, ledger.note_use)
        adoption = Adoption(ledger, now_in_microseconds, log.warning)
        stack.callback(adoption.stop)
        book = Book(ledger, settings.ledger.currency, time.time, log.warning)
        _until_the_end(stack, book.look_after(settings.ledger.retain_days))
        ledger_ids = random.Random(secrets.token_bytes(32))  # noqa: S311 (they are unique, and no secret)
        drawings = Drawings(metrics, settings.ledger.currency)
        traces = await _open_traces(stack, log)
        metered_ledger = MeteredLedger(ledger, drawings, metrics, traces)
        price_list = PriceList(lambda: ledger.database, now_in_microseconds, log.warning)
        stack.callback(price_list.stop)
        randomness, currency = ledger_ids.randbytes, settings.ledger.currency
        accounts = Accounts(metered_ledger, time.time, randomness, currency, price_list.find)
        observers: tuple[RunObserver, ...] = (RunLog(log, partial(_report_failed_run, log, alarm)), drawings)
        table = RunTable(lambda: ledger.database, ledger.replica)
        registry = open_registry(table, data.secret.derive(RUNS), log.warning)
        persistence.registry = await stack.enter_async_context(registry)
        entries = persistence.load(
            runs.retain_seconds,
            time.monotonic,
            resume=resume,
            recording=recording,
            observers=observers,
            accounts=accounts,
        )
        undelivered = [entry for entry in entries if not entry.run.state.is_delivered]
        store = DiskStore(
            data.folder("files"),
            lifetime=files.lifetime_seconds,
            max_bytes=files.max_bytes,
            clock=clock,
            held={name for entry in undelivered for name in _files_of(entry)},
            report=partial(alarm.failed, "files"),
        )
        for entry in undelivered:
            for file in filter(None, map(store.holds, _files_of(entry))):
                entry.run.call.files.callback(store.release, file)
        _until_the_end(stack, store.keep_clean(CLEANING_SECONDS))
        room = Room(runs.memory_bytes, runs.disk_bytes, runs.retain_seconds)
        retention = Retention(
            room,
            meter,
            persistence,
            time.monotonic,
            entries,
            partial(_free, data.path, alarm),
        )
        upload_budget = Budget(settings.server.max_uploads_bytes, TEXT_IN_MEMORY)
        health, retry_budget = Health(time.monotonic), RetryBudget(time.monotonic)
        queues = Slots(
            time.monotonic, settings.queue.max_length, settings.queue.max_seconds, [drawings, *_some(traces)]
        )
        sources = Sources(
            health=health,
            queues=queues,
            retry_budget=retry_budget,
            retention=retention,
            room=room,
            store=store,
            uploads=upload_budget,
            ledger=ledger,
            disk=partial(shutil.disk_usage, data.path),
        )
        metrics_state = State(metrics, drawings, sources)
        exposition = Exposition(metrics, metrics_state.read)
        _until_the_end(stack, watch_loop(metrics))
        if settings.metrics.port is not None:
            own = listen(MetricsApp(exposition), settings.metrics.host, settings.metrics.port, setting="metrics")
            log.event("metrics are served", host=settings.metrics.host, port=await stack.enter_async_context(own))
        resources = Resources(
            log=log,
            run_observers=observers,
            sandbox_url=sandbox_url,
            spools=spools,
            upload_budget=upload_budget,
            uploads=lambda: Uploads(spools, upload_budget),
            recording=recording,
            transport=await stack.enter_async_context(AiohttpTransport()),
            fetcher=await stack.enter_async_context(Fetcher()),
            store=store,
            signer=Signer(data.secret.derive(LINKS), clock, data.former_link_secret),
            clock=clock,
            meter=meter,
            retention=retention,
            health=health,
            queues=queues,
            retry_budget=retry_budget,
            body_gate=BodyGate(),
            workers=stack.enter_context(
                Workers(lambda: Spool(0, spools), observe=partial(_converted, metrics, traces))
            ),
            ledger=ledger,
            price_list=price_list,
            accounts=accounts,
            book=book,
            mint=KeyMint(pepper, secrets.choice),
            issued_keys=issued_keys,
            wrong_keys=WrongKeys(time.monotonic),
            adoption=adoption,
            drawings=drawings,
            traces=traces,
            requests=Requests(metrics),
            metered_ledger=metered_ledger,
            metrics_state=metrics_state,
            exposition=exposition,
        )
        stack.push_async_callback(retention.close)
        _until_the_end(stack, _alerts(settings, resources).run())
        yield resources


def make_runtime(resources: Resources, settings: Settings, before: Runtime | None = None) -> Runtime:
    """Return the runtime of `settings`; `before` is the one that it replaces."""
    if resources.sandbox_url:
        settings = with_sandbox(settings, resources.sandbox_url)
    for name, provider in before.settings.providers.items() if before else ():
        if settings.providers.get(name) != provider:
            resources.health.forget(name)
    server = settings.server
    resources.upload_budget.disk_bytes = server.max_uploads_bytes
    dialect = cache(dialects.load)
    catalog = Catalog(
        inventory.models(settings, lambda name: dialect(name).profile),
        inventory.aliases(settings),
        settings.default_models,
        lists_aliases=server.list_aliases,
    )
    resources.price_list.state(inventory.prices(settings, catalog.models))
    gateway = Gateway(
        catalog,
        Exchanges(Upstream(resources.transport), resources.fetcher, asyncio.sleep),
        dialect,
        Policy(resources.health, resources.queues, resources.retry_budget, random.random),
        Delivery(resources.store, server.default_response_format, resources.signer.url),
        resources.workers,
        recording=resources.recording,
        nonce=lambda: secrets.token_hex(16),
        clock=time.monotonic,
        sleep=asyncio.sleep,
        observers=[
            AttemptLog(resources.log, prompts=settings.logging.prompts),
            resources.accounts,
            resources.drawings,
            *_some(resources.traces),
        ],
    )
    resources.metrics_state.models, resources.metrics_state.stated_keys = catalog.models, len(settings.keys)
    resources.requests.model_name = partial(_configured_name, catalog)
    resources.ledger.name_keys(inventory.key_names(settings))
    limits = BodyLimits(server.max_upload_bytes, server.max_request_bytes, rate=server.min_upload_rate)
    rules = PageRules(frozenset(server.allowed_hosts), frozenset(server.cors_origins))
    keyring = Keyring(
        inventory.keys(settings), resources.issued_keys, resources.wrong_keys, is_sandbox=bool(resources.sandbox_url)
    )
    return Runtime(
        settings=settings,
        resources=resources,
        page_rules=rules,
        keyring=keyring,
        administration=Administration(
            book=resources.book,
            authenticate=partial(api.authenticate, keyring),
            mint=resources.mint,
            deployments=partial(see_deployments, lambda: catalog.models, resources.health, resources.queues),
            clock=time.time,
            check=partial(check_provider, settings, catalog.models),
            configuration=partial(without_secrets, settings),
            stated_keys=keyring.stated_keys,
            is_open=bool(resources.sandbox_url),
        ),
        exposition=None if settings.metrics.port is not None else resources.exposition,
        admission=Admission(
            resources.metered_ledger,
            time.time,
            resources.accounts.randomness,
            settings.ledger.currency,
            settings.ledger.end_users,
        ),
        catalog=catalog,
        gateway=gateway,
        fetch=partial(upload, resources.fetcher, limits) if server.remote_images else None,
        body_limits=limits,
        keepalive_seconds=server.keepalive_seconds,
        json_keepalive_after=server.json_keepalive_after,
        finish_on_disconnect=settings.runs.on_disconnect == "finish",
        public_url=settings.files.public_url,
        log_prompts=settings.logging.prompts,
    )


async def _open_traces(stack: AsyncExitStack, log: Log) -> Traces | None:
    """Begin to send traces, if OpenTelemetry's variables say where to."""
    if not any(name.startswith("OTEL_") for name in os.environ):
        return None
    from app.telemetry import traces

    if not traces.is_wanted(os.environ):
        return None
    fault = traces.find_fault(os.environ)
    if fault is None:
        try:
            provider = await asyncio.to_thread(traces.open_provider, os.environ)
        except ImportError:
            fault = "the extra `otel` is not installed: pip install 'image-gateway[otel]'"
        else:
            stack.push_async_callback(asyncio.to_thread, provider.shutdown)
            return traces.Traces(provider)
    log.warning("traces are not sent", reason=fault)
    return None


def _some(traces: Traces | None) -> list[Traces]:
    return [] if traces is None else [traces]


def _converted(metrics: Metrics, traces: Traces | None, kind: str, seconds: float) -> None:
    metrics.conversion_seconds.observe(seconds, kind)
    if traces is not None:
        traces.note("convert", seconds, {"imagegw.kind": kind})


def _configured_name(catalog: Catalog, name: str) -> str | None:
    """Return the own name of a model that a caller asked for; None: there is no such model."""
    return catalog.own_name(name, ANONYMOUS) if catalog.find(name, ANONYMOUS) else None


def _until_the_end(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Do the work beside everything else, until the stack is closed."""
    task = asyncio.create_task(work)
    stack.push_async_callback(lambda: asyncio.gather(task, return_exceptions=True))
    stack.callback(task.cancel)


async def adopt(resources: Resources, settings: Settings) -> None:
    """Bring the projects and budgets of the configuration into the database."""
    await resources.adoption.adopt(settings)


def now_in_microseconds() -> int:
    return to_microseconds(time.time())


def _alerts(settings: Settings, resources: Resources) -> BudgetAlerts:
    ledger, webhook = resources.ledger, settings.webhook
    send = None
    if webhook.url and webhook.secret:
        send = Webhook(Connections(), webhook.url, webhook.secret.get_secret_value(), time.time).send
    outbox = Outbox(lambda: ledger.database, now_in_microseconds)
    return BudgetAlerts(outbox, lambda: ledger.directory, settings.ledger.currency, resources.log.warning, send)


def _files_of(entry: RunEntry) -> list[str]:
    """Return the names of the files that the links of a run lead to."""
    return [file_name(event.url) for event in entry.run.recording.log() if isinstance(event, ImageLink)]


def steady(wall: Callable[[], float], elapsed: Callable[[], float]) -> Callable[[], float]:
    """Return a clock that begins at `wall`'s Unix time and then goes on evenly: a link does not end because a clock was
    set."""
    since = wall() - elapsed()
    return lambda: since + elapsed()


def _free(path: Path, alarm: DiskAlarm) -> int:
    """Return the free bytes of the disk. Too few raise the alarm, and so does a disk that is away: to forget runs would
    not bring it back."""
    try:
        free = free_bytes(path)
    except OSError as error:
        alarm.failed(path.name, error)
        return LEAST_FREE
    if free < LEAST_FREE:
        alarm.failed(path.name, no_space())
    return free


def _report_unkept(log: Log, alarm: DiskAlarm, run_id: str, error: Exception) -> None:
    """Log that a run that was perhaps paid for may be lost with the process, or is lost already."""
    if isinstance(error, OSError):
        alarm.failed("runs", error)
    log.warning("run could not be kept", request_id=run_id, reason=getattr(error, "strerror", None) or str(error))


def _report_failed_run(log: Log, alarm: DiskAlarm, run_id: str, error: Exception) -> None:
    if is_full(error):
        _report_unkept(log, alarm, run_id, error)
    else:
        log.crash(run_id, error)
