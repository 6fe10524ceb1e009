"""The loops around the workers' steps: take what is due as slots get free, wake at once when something is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from payments_service import accounts, delivery, doctor, idempotency, payments, reconcile, sending, sweeps
from payments_service.context import Context
from payments_service.db import Row
from payments_service.delivery import Courier

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
EXPIRY_SECONDS = 5.0
# How often the newest rows are examined; the first time after as long.
DOCTOR_SECONDS = 600.0
SWEEP_SLOTS = 8
# Of one gateway at once: a slow gateway fills its own slots only.
CHECK_SLOTS = 32
DELIVERY_SLOTS = 32
MESSAGE_SLOTS = 16

Claim = Callable[[int], Awaitable[list[Row]]]
Handle = Callable[[Row], Awaitable[None]]


async def pump(name: str, claim: Claim, handle: Handle, slots: int, wake: asyncio.Event, stop: asyncio.Event) -> None:
    """Claim and handle, at most `slots` at once, until `stop`; then finish what was begun."""
    running: set[asyncio.Task[None]] = set()

    def enough_free(_: object) -> None:
        # Claiming for each single slot that gets free would cost a statement a row.
        if len(running) <= slots * 3 // 4:
            wake.set()

    while not stop.is_set():
        wake.clear()
        free = slots - len(running)
        taken = await _claimed(name, claim, free) if free else []
        for row in taken:
            task = asyncio.create_task(_guarded(name, handle, row))
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(enough_free)
        if len(taken) < free or not free:
            await _pause(wake, stop, POLL_SECONDS)
    await asyncio.gather(*running)


async def _claimed(name: str, claim: Claim, free: int) -> list[Row]:
    try:
        return await claim(free)
    except Exception as error:
        # Whatever it was, a worker must not die of it: the rows stay due.
        log.error("worker_failed", worker=name, exc_info=error)
        await asyncio.sleep(POLL_SECONDS)
        return []


async def _guarded(name: str, handle: Handle, row: Row) -> None:
    try:
        await handle(row)
    except Exception as error:
        # The row is due again when its lease ends.
        log.error("worker_failed", worker=name, exc_info=error)


async def _pause(wake: asyncio.Event, stop: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.create_task(wake.wait()), asyncio.create_task(stop.wait())]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _expire(context: Context, stop: asyncio.Event) -> None:
    never = asyncio.Event()
    while not stop.is_set():
        try:
            while await payments.expire_due(context) and not stop.is_set():
                pass
            await accounts.forget_retired(context)
            await idempotency.forget_old(context)
            await sweeps.enlist(context)
        except Exception as error:
            log.error("worker_failed", worker="expiry", exc_info=error)
        await _pause(never, stop, EXPIRY_SECONDS)


async def _examine(context: Context, stop: asyncio.Event, *, telling: bool) -> None:
    """Look now and then whether what was written lately is whole: a fault in the code shows there first."""
    never = asyncio.Event()
    while True:
        await _pause(never, stop, DOCTOR_SECONDS)
        if stop.is_set():
            return
        try:
            faults = await doctor.look_at_newest(context, telling=telling)
            context.metrics.examined(faults, context.clock())
            for name, count in faults.items():
                if count:
                    log.error("doctor_found", reason=name, count=count)
        except Exception as error:
            log.error("worker_failed", worker="doctor", exc_info=error)


async def _swept(context: Context, turn: Row) -> None:
    await sweeps.sweep(context, turn)


async def run(context: Context, courier: Courier | None, stop: asyncio.Event) -> None:
    """All workers, until `stop`: look-ups per gateway, undelivered messages, expiry, and delivery when there is where
    to deliver."""
    never = asyncio.Event()
    turns = partial(sweeps.claim, context)
    jobs = [_expire(context, stop), _examine(context, stop, telling=courier is not None)]
    jobs.append(pump("sweeps", turns, partial(_swept, context), SWEEP_SLOTS, never, stop))
    for name in context.gateways:
        claim_checks = partial(reconcile.claim, context, name)
        check = partial(reconcile.check, context)
        jobs.append(pump(f"checks.{name}", claim_checks, check, CHECK_SLOTS, context.checks_due.listen(), stop))
    claim_messages, send = partial(sending.claim, context), partial(sending.deliver, context)
    jobs.append(pump("messages", claim_messages, send, MESSAGE_SLOTS, context.messages_due.listen(), stop))
    if courier is not None:
        claim_events = partial(delivery.claim, context)
        deliver = partial(delivery.deliver, context, courier)
        jobs.append(pump("delivery", claim_events, deliver, DELIVERY_SLOTS, context.events_due.listen(), stop))
    await asyncio.gather(*jobs)
