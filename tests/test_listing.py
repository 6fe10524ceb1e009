"""Finding payments: filters, pages without gaps, totals, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
import pytest_asyncio

from payments_service import listing
from tests.house import Answer, House
from tests.support import afresh, open_house

SOMEBODY = "c0000000-0000-4000-8000-000000000001"
DAY = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T00:00:00Z"}
NEVER = {"from": "2027-01-01T00:00:00Z", "to": "2027-01-02T00:00:00Z"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
def house(service: House) -> House:
    return afresh(service)


def plant(house: House, count: int = 1, **fields: object) -> list[str]:
    """Payments of the tenant, one second apart, oldest first; their ids."""
    ids = []
    for number in range(count):
        row = {
            "id": uuid4(),
            "client_id": house.client_id,
            "reference": f"INV-{number}",
            "amount_cents": 1250,
            "created_at": f"2026-11-01T00:00:{number % 60:02}Z",
            **fields,
        }
        columns, places = ", ".join(row), ", ".join(["%s"] * len(row))
        house.world.rows_do(f"INSERT INTO payments ({columns}) VALUES ({places})", *row.values())
        ids.append(str(row["id"]))
    return ids


async def ask(house: House, rest: str = "", **query: object) -> Answer:
    return await house.call("GET", f"{house.path('/payments')}{rest}?{urlencode(query)}")


async def found(house: House, **query: object) -> list[str]:
    answer = await ask(house, **query)
    assert answer.status == 200, answer.body
    return [payment["id"] for payment in answer.json["data"]]


async def faults(house: House, rest: str = "", **query: object) -> list[str]:
    answer = await ask(house, rest, **query)
    assert answer.status == 422, answer.body
    return [fault["field"] for fault in answer.json["errors"]]


async def test_a_payment_in_the_list_is_the_payment(house: House) -> None:
    await house.save_paynow()
    made = await house.create_link(gateway=None)
    answer = await ask(house)
    assert answer.json == {"data": [made], "next_cursor": None}


async def test_pages_follow_each_other_without_gap_or_repetition(house: House) -> None:
    """Newest first, also where many were made in the same moment, while new ones arrive."""
    ids = plant(house, 10, created_at="2026-11-01T00:00:00Z") + plant(house, 13)
    seen, cursor = [], None
    while True:
        answer = await ask(house, limit=4, **({"cursor": cursor} if cursor else {}))
        page = [payment["id"] for payment in answer.json["data"]]
        assert len(page) == 4 or answer.json["next_cursor"] is None
        seen += page
        cursor = answer.json["next_cursor"]
        plant(house, created_at="2026-11-02T00:00:00Z")
        if cursor is None:
            break
    assert sorted(seen) == sorted(ids)
    rows = house.world.rows(
        "SELECT id FROM payments WHERE client_id = %s AND created_at < '2026-11-02' ORDER BY created_at DESC, id DESC",
        house.client_id,
    )
    assert seen == [str(row["id"]) for row in rows]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ({"status": "paid"}, {"status": "paid"}),
        ({"gateway": "ecocash"}, {"gateway": "ecocash"}),
        ({"currency": "ZIG"}, {"currency": "ZIG"}),
        ({"currency": "ZIG"}, {"currency": "ZWG"}),
        ({"reference": "A & B/1"}, {"reference": "A & B/1"}),
        ({"contact_id": SOMEBODY}, {"contact_id": SOMEBODY}),
        ({"invoice_id": SOMEBODY}, {"invoice_id": SOMEBODY}),
        ({"created_at": "2026-11-03T12:00:00Z"}, {"created_from": "2026-11-03T12:00:00Z"}),
        ({"created_at": "2026-11-03T12:00:00Z"}, {"created_from": "2026-11-03T14:00:00+02:00"}),
        ({"created_at": "2026-10-01T00:00:00Z"}, {"created_to": "2026-10-01T00:00:01Z"}),
    ],
    ids=str,
)  # fmt: skip
async def test_each_filter_finds_its_own(house: House, stored: dict[str, str], asked: dict[str, str]) -> None:
    """And no other tenant's, whatever is asked for."""
    plant(house, 3)
    (mine,) = plant(house, **stored)
    plant(afresh(house), **stored)
    assert await found(house, **asked) == [mine]


async def test_filters_together_must_all_fit(house: House) -> None:
    plant(house, status="paid", gateway="stripe")
    (both,) = plant(house, status="paid", gateway="paynow")
    plant(house, status="failed", gateway="paynow")
    assert await found(house, status="paid", gateway="paynow") == [both]
    assert await found(
        house, created_from="2026-11-01T00:00:00Z", created_to="2026-11-01T00:00:00.000001Z", status="paid"
    )
    assert await found(house, created_to="2026-11-01T00:00:00Z") == [], "the end is not in it"


async def test_what_cannot_be_asked_is_told_field_by_field(house: House) -> None:
    assert await faults(house, status="lost", gateway="visa", currency="ZAR", limit=0, colour="red") == [
        "colour", "currency", "gateway", "limit", "status",
    ]  # fmt: skip
    assert await faults(house, limit=201) == ["limit"]
    assert await faults(house, contact_id="me", created_from="yesterday") == ["contact_id", "created_from"]
    assert await faults(house, created_from="2026-11-01T00:00:00") == ["created_to"]
    assert await faults(house, created_from="2026-11-02T00:00:00Z", created_to="2026-11-01T00:00:00Z") == ["created_to"]
    for cursor in ("x", "AAAA", "é", "A" * 32 + "!", "_" * 32):
        assert await faults(house, cursor=cursor) == ["cursor"]
    answer = await house.call("GET", f"{house.path('/payments')}?status=paid&status=failed")
    assert [fault["field"] for fault in answer.json["errors"]] == ["status"]


@pytest.mark.parametrize(
    "asked",
    [{name: "null"} for name in ("status", "gateway", "currency", "contact_id", "invoice_id")]
    + [{name: moment} for name in ("created_from", "created_to") for moment in ("null", "1793491200")]
    + [{"reference": "INV\0"}],
    ids=str,
)
@pytest.mark.parametrize("rest", ["", ".csv"])
async def test_what_says_nothing_is_refused_as_a_filter(house: House, rest: str, asked: dict[str, str]) -> None:
    """A filter that was left out unseen would show payments that nobody asked for."""
    plant(house)
    assert await faults(house, rest, **asked) == list(asked)


async def test_a_reference_may_look_like_nothing(house: House) -> None:
    plant(house)
    (mine,) = plant(house, reference="null")
    assert await found(house, reference="null") == [mine]


async def test_a_summary_may_end_where_time_begins(house: House) -> None:
    """A month before then there is no date."""
    answer = await ask(house, "/summary", to="0001-01-01T00:00:00Z")
    assert (answer.status, answer.json["data"]) == (200, [])


async def test_a_summary_adds_up_by_gateway_currency_and_status(house: House) -> None:
    """What was paid and not given back is the net; another tenant's money is not in it."""
    plant(house, 2, status="paid", gateway="ecocash", paid_at="2026-11-01T00:00:00Z")
    plant(house, status="partially_refunded", gateway="ecocash", paid_at="2026-11-01T00:00:00Z", refunded_cents=250)
    plant(house, 3, status="pending")
    plant(house, status="paid", gateway="ecocash", currency="ZIG", amount_cents=700, paid_at="2026-11-01T00:00:00Z")
    plant(afresh(house), 5, status="paid", gateway="ecocash", paid_at="2026-11-01T00:00:00Z")
    answer = await ask(house, "/summary", **DAY)
    assert answer.json == {
        **DAY,
        "data": [
            total("ecocash", "USD", "paid", 2, 2500, 0, 2500),
            total("ecocash", "USD", "partially_refunded", 1, 1250, 250, 1000),
            total("ecocash", "ZIG", "paid", 1, 700, 0, 700),
            total(None, "USD", "pending", 3, 3750, 0, 0),
        ],
    }
    assert (await ask(house, "/summary", **{"from": "2027-01-01T00:00:00Z", "to": "2027-01-02T00:00:00Z"})).json[
        "data"
    ] == []
    assert await faults(house, "/summary", **{**DAY, "to": DAY["from"]}) == ["to"]


def total(gateway: str | None, currency: str, status: str, count: int, *cents: int) -> dict[str, Any]:
    amount, refunded, net = cents
    return {
        "gateway": gateway, "currency": currency, "status": status, "count": count,
        "amount_cents": amount, "refunded_cents": refunded, "net_cents": net,
    }  # fmt: skip


async def test_csv_has_every_payment_that_fits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in parts, as one table; what a spreadsheet would take for a formula is made a text."""
    monkeypatch.setattr(listing, "CSV_PAGE", 5)
    ids = plant(house, 11, status="paid")
    plant(house, 2)
    plant(
        house,
        reference='=HYPERLINK("x")',
        description='one, "two"\nthree',
        status="paid",
        created_at="2026-10-01T00:00:00Z",
    )
    answer = await ask(house, ".csv", status="paid")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "payments.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
    assert sorted(row["id"] for row in rows[:-1]) == sorted(ids)
    assert rows[-1]["reference"] == """'=HYPERLINK("x")"""
    assert rows[-1]["description"] == 'one, "two"\nthree'
    assert (rows[-1]["amount_cents"], rows[-1]["late"], rows[-1]["created_at"]) == (
        "1250",
        "false",
        "2026-10-01T00:00:00Z",
    )
    assert (await ask(house, ".csv", status="failed")).body.decode().splitlines() == [",".join(listing.CSV_COLUMNS)]
    assert await faults(house, ".csv", limit=3) == ["limit"]
