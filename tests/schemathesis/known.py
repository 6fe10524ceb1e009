"""A tenant whose payments stand in many states, and the values of theirs that lead somewhere."""

from __future__ import annotations

from dataclasses import dataclass

from payments_service.sandbox.paynow import DEMO_INTEGRATIONS
from tests.every_gateway import CARD, ECOCASH, INNBUCKS, LANES, WEB, Begun, Desk
from tests.house import House

# By the name of the parameter, the most useful first.
Values = dict[str, list[str]]


@dataclass(frozen=True)
class Stage:
    house: House
    values: Values

    @classmethod
    async def of(cls, house: House) -> Stage:
        desk = await Desk.open(house)
        integration, key, _ = DEMO_INTEGRATIONS[1]
        await desk.settle(paynow_zig_integration_id=integration, paynow_zig_integration_key=key)
        await desk.house.save_stripe()
        await paid(desk)
        await desk.link()  # nothing is begun
        for lane in LANES:
            await desk.begin(lane)
        return cls(desk.house, values(desk))


async def paid(desk: Desk) -> None:
    """What was paid by each gateway; of Paynow's one cent too much came; the answers of EcoCash's refunds were lost a
    while ago."""
    begun = [await desk.begin(lane) for lane in (CARD, CARD, INNBUCKS, ECOCASH[0], ECOCASH[0])]
    for each in begun:
        await each.pay()
    await (await desk.begin(WEB)).pay(1251)
    desk.world.clock.forward(minutes=1)
    await desk.look()
    desk.world.ecocash.add_fault("unavailable", on=["refund"])
    for each in begun[-2:]:
        await give_back(each, 504)
    desk.world.ecocash.clear_faults()
    await give_back(begun[1], 201)
    desk.world.clock.forward(minutes=1)


async def give_back(begun: Begun, expected: int) -> None:
    path = begun.desk.house.path(f"/payments/{begun.id}/refunds")
    answer = await begun.desk.house.call("POST", path, {"reason": "One bag was torn", "amount_cents": 250})
    assert answer.status == expected, answer.body


def values(desk: Desk) -> Values:
    def found(sql: str) -> list[str]:
        rows = desk.world.rows(sql, desk.house.client_id)
        return [str(row["value"]) for row in rows]

    # First the one with the first refund to settle, then what was paid and what waits by turns.
    payments = (
        "FROM payments p WHERE client_id = %s ORDER BY id = (SELECT payment_id FROM refunds r "
        "WHERE r.client_id = p.client_id AND state = 'requested' ORDER BY id LIMIT 1) DESC, "
        "row_number() OVER (PARTITION BY status ORDER BY id), status"
    )
    return {
        "client_id": [str(desk.house.client_id)],
        "payment_id": found(f"SELECT id AS value {payments}"),
        "refund_id": found("SELECT id AS value FROM refunds WHERE client_id = %s AND state = 'requested' ORDER BY id"),
        "event_id": found("SELECT id AS value FROM events WHERE client_id = %s ORDER BY id LIMIT 4"),
        "attempt": found("SELECT id AS value FROM attempts WHERE client_id = %s ORDER BY id DESC LIMIT 4"),
        "token": found(f"SELECT page_token AS value {payments}"),
    }
