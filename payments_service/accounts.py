"""A tenant's gateway credentials: saved sealed and audited, shown masked, opened for a gateway's call."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from payments_service import audit
from payments_service.context import Context
from payments_service.errors import NotConfigured, Unreadable, WrongState
from payments_service.gateways.base import FieldSets, Gateway
from payments_service.gateways.registry import Gateways
from payments_service.message_tables import stopped_senders
from payments_service.money import Currency
from payments_service.tables import payment_settings, retired_settings
from payments_service.vault import CannotOpen

# Field name -> column. A column that ends in `_enc` holds a sealed text, and its field is a secret.
COLUMNS: dict[str, str] = {
    column.name.removesuffix("_enc"): column.name
    for column in payment_settings.columns
    if column.name not in ("id", "client_id", "updated_at")
}
SECRETS = frozenset(field for field, column in COLUMNS.items() if column.endswith("_enc"))

_WHATSAPP: FieldSets = (("whatsapp_phone_number_id", "whatsapp_access_token"),)

# As long as an attempt is watched at the longest: a link's life and a month after it.
RETIRED_LIFE = timedelta(days=63)


def configured_by(gateways: Gateways) -> dict[str, FieldSets]:
    """What must be saved for each `<name>_configured` that is shown."""
    flags = {flag: sets for gateway in gateways.values() for flag, sets in gateway.configured_by.items()}
    return {**flags, "whatsapp_configured": _WHATSAPP}


async def save(
    context: Context,
    client_id: UUID,
    changes: Mapping[str, str | None],
    *,
    actor: str,
    instead_of: Mapping[str, str | None] | None = None,
) -> dict[str, Any]:
    """Save the given fields (None clears one), with an audit row in the same transaction; the masked settings.

    The audit row names the fields, never their values. Credentials of a gateway that others take the place of are
    kept for what was started with them; cleared ones are gone, and what was started with them cannot be proved.

    `instead_of`: what must still stand in these columns (`stored`), or WrongState is raised and nothing saved.
    """
    at = context.clock()
    row: dict[str, Any] = {"client_id": client_id, "updated_at": at}
    for field, value in changes.items():
        column = COLUMNS[field]
        sealed = field in SECRETS and value is not None
        row[column] = context.vault.seal(value or "", client_id=client_id, column=column) if sealed else value
    async with context.db.as_tenant(client_id) as connection:
        if changes:
            before = await _locked(connection, client_id)
            if any((before or {}).get(column) != value for column, value in (instead_of or {}).items()):
                raise WrongState("Somebody else changed these settings at the same time; look at them, then try again.")
            if any(field.startswith("whatsapp_") for field in changes):
                await connection.execute(delete(stopped_senders).where(stopped_senders.c.client_id == client_id))
            if before is not None:
                await _retire(context, connection, before, changes, at)
                row = {**_renewed(context, before), **row}
            statement = upsert(payment_settings).values(row)
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["client_id"], set_={**row, "client_id": client_id})
            )
            detail = {
                "set": sorted(field for field, value in changes.items() if value is not None),
                "cleared": sorted(field for field, value in changes.items() if value is None),
            }
            await audit.record(
                connection, client_id, actor=actor, action="payment_settings.saved", detail=detail, at=at
            )
        return await _masked(context, connection, client_id)


async def stored(context: Context, client_id: UUID, field: str) -> dict[str, str | None]:
    """The field's column with what stands in it, sealed where it is a secret: for `save`'s `instead_of`."""
    column = COLUMNS[field]
    sql = f"SELECT {column} FROM payment_settings WHERE client_id = %(client_id)s"
    rows = await context.db.run(sql, {"client_id": client_id}, tenant=client_id)
    return {column: rows[0][column] if rows else None}


async def _locked(connection: AsyncConnection, client_id: UUID) -> Mapping[Any, Any] | None:
    found = await connection.execute(
        select(payment_settings).where(payment_settings.c.client_id == client_id).with_for_update()
    )
    return found.mappings().one_or_none()


def _renewed(context: Context, row: Mapping[Any, Any]) -> dict[str, str]:
    """What stands in the row in the old form or under an earlier key, sealed anew. What does not open stays."""
    renewed = {}
    for column in (COLUMNS[field] for field in SECRETS if row[COLUMNS[field]] is not None):
        with suppress(CannotOpen):
            if sealed := context.vault.rewrap(row[column], client_id=row["client_id"], column=column):
                renewed[column] = sealed
    return renewed


async def _retire(
    context: Context,
    connection: AsyncConnection,
    row: Mapping[Any, Any],
    changes: Mapping[str, str | None],
    at: datetime,
) -> None:
    """Keep, of each gateway, the credentials that are about to be replaced; let go of all where one is cleared."""
    client_id = row["client_id"]
    for gateway in context.gateways.values():
        columns = {field: COLUMNS[field] for field in gateway.settings}
        # A form may send null for what it leaves empty, and never held.
        if any(changes.get(field, "") is None and row[column] is not None for field, column in columns.items()):
            await connection.execute(
                delete(retired_settings).where(
                    retired_settings.c.client_id == client_id, retired_settings.c.gateway == gateway.name
                )
            )
        elif _replaces(context, gateway, row, changes):
            stored = {column: row[column] for column in columns.values() if row[column] is not None}
            await connection.execute(
                insert(retired_settings).values(client_id=client_id, gateway=gateway.name, stored=stored, retired_at=at)
            )


def _replaces(
    context: Context, gateway: Gateway[Any], row: Mapping[Any, Any], changes: Mapping[str, str | None]
) -> bool:
    """Whether other credentials take the place of those in the row, for any currency: also by a field that was empty,
    such as the name of another dialect."""
    before = {}
    for field in gateway.settings:
        with suppress(Unreadable):
            before[field] = opened(context, row["client_id"], COLUMNS[field], row[COLUMNS[field]])
    after = {**before, **{field: changes[field] for field in gateway.settings if field in changes}}
    return any(
        (known := _made(gateway, before, currency)) is not None and known != _made(gateway, after, currency)
        for currency in gateway.currencies
    )


def _made(gateway: Gateway[Any], values: Mapping[str, str | None], currency: Currency) -> object | None:
    with suppress(NotConfigured):
        made: object = gateway.credentials(values, currency)
        return made
    return None


async def masked(context: Context, client_id: UUID) -> dict[str, Any]:
    """The fields that are no secret, and what is configured. A tenant never seen: all null and false."""
    async with context.db.as_tenant(client_id) as connection:
        return await _masked(context, connection, client_id)


async def _masked(context: Context, connection: AsyncConnection, client_id: UUID) -> dict[str, Any]:
    found = await connection.execute(select(payment_settings).where(payment_settings.c.client_id == client_id))
    row: Mapping[Any, Any] = found.mappings().one_or_none() or {}
    shown = {field: row.get(column) for field, column in COLUMNS.items() if field not in SECRETS}
    flags = {
        name: any(all(row.get(COLUMNS[field]) for field in fields) for fields in choices)
        for name, choices in configured_by(context.gateways).items()
    }
    return {**shown, **flags}


async def credentials(
    context: Context,
    client_id: UUID,
    gateway: str,
    currency: Currency,
    *,
    tenant: UUID | None = None,
    preferences: bool = True,
) -> Any:
    """The tenant's credentials for this gateway and currency, of the gateway's own type.

    Without `preferences` for what was begun before: it must be proved, whatever the tenant wants begun by now.

    Raises NotConfigured in plain words, and Unreadable for a stored value that no known key opens.
    """
    adapter = context.gateways.get(gateway)
    if adapter is None:
        known = ", ".join(context.gateways)
        raise NotConfigured(f"This version of the service takes payments through {known}, not yet through {gateway}.")
    fields = _fields_of(adapter) if preferences else adapter.settings
    rows = await context.db.run(
        f"SELECT {', '.join(COLUMNS[field] for field in fields)} FROM payment_settings WHERE client_id = %(client_id)s",
        {"client_id": client_id},
        tenant=tenant,
    )
    return _credentials(context, client_id, adapter, rows[0] if rows else {}, currency)


async def former_credentials(
    context: Context, client_id: UUID, gateway: str, currency: Currency, *, since: datetime
) -> list[Any]:
    """The credentials for this gateway and currency that others have taken the place of after `since`, the last ones
    first. What does not open is left out."""
    rows = await context.db.run(
        """
        SELECT stored FROM retired_settings
        WHERE client_id = %(client_id)s AND gateway = %(gateway)s AND retired_at > %(since)s
        ORDER BY id DESC LIMIT 5""",
        {"client_id": client_id, "gateway": gateway, "since": since},
    )
    found = []
    for row in rows:
        with suppress(NotConfigured, Unreadable):
            found.append(_credentials(context, client_id, context.gateways[gateway], row["stored"], currency))
    return found


async def known_credentials(
    context: Context, client_id: UUID, gateway: str, *, since: datetime | None = None
) -> list[tuple[Currency, Any]]:
    """All of the tenant's credentials for the gateway, each with its currency: those of now first, then those that
    others have taken the place of `since` then. What does not open is left out."""
    adapter = context.gateways[gateway]
    columns = ", ".join(f"'{column}', {column}" for column in (COLUMNS[field] for field in _fields_of(adapter)))
    rows = await context.db.run(
        f"""
        SELECT * FROM (
            SELECT jsonb_build_object({columns}) AS stored, NULL AS id FROM payment_settings
            WHERE client_id = %(client_id)s
            UNION ALL
            SELECT stored, id FROM retired_settings
            WHERE client_id = %(client_id)s AND gateway = %(gateway)s AND retired_at > %(since)s
        ) AS known ORDER BY id DESC NULLS FIRST LIMIT 20""",
        {"client_id": client_id, "gateway": gateway, "since": since or context.clock() - RETIRED_LIFE},
    )
    found = []
    for row in rows:
        for currency in sorted(adapter.currencies):
            with suppress(NotConfigured, Unreadable):
                found.append((currency, _credentials(context, client_id, adapter, row["stored"], currency)))
    return found


async def forget_retired(context: Context) -> None:
    """Remove what nothing can need any more."""
    await context.db.run(
        "DELETE FROM retired_settings WHERE retired_at <= %(since)s", {"since": context.clock() - RETIRED_LIFE}
    )


def _credentials(
    context: Context, client_id: UUID, gateway: Gateway[Any], stored: Mapping[str, Any], currency: Currency
) -> Any:
    values = {
        field: opened(context, client_id, COLUMNS[field], stored.get(COLUMNS[field])) for field in _fields_of(gateway)
    }
    return gateway.credentials(values, currency)


def _fields_of(gateway: Gateway[Any]) -> tuple[str, ...]:
    return (*gateway.settings, *gateway.preferences)


def opened(context: Context, client_id: UUID, column: str, stored: str | None) -> str | None:
    if stored is None or not column.endswith("_enc"):
        return stored
    try:
        return context.vault.open(stored, client_id=client_id, column=column)
    except CannotOpen as error:
        raise Unreadable(
            f"{column.removesuffix('_enc')}: {error}. Save it again, or restore the missing key."
        ) from error
