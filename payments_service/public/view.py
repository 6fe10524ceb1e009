"""How the pay page is drawn: the words, facts and actions of a state, put into the templates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import jinja2
import segno
from markupsafe import Markup

from payments_service.attempts import method_of
from payments_service.checkout import tried_key
from payments_service.context import Context
from payments_service.db import Row
from payments_service.gateways.base import ApproveOnPhone, EnterOtp, Kind, NextStep, Redirect, ShowCode
from payments_service.lifecycle import PAYABLE
from payments_service.money import Currency, Money
from payments_service.phones import local, parse_mobile
from payments_service.public.assets import PAGES, PREVIEW_SIZE, SCRIPT, STYLE
from payments_service.public.states import CHOICES, RECEIPTS, Visit, version_of, watch
from payments_service.public.texts import ENGLISH, State, Words
from payments_service.records import money_of
from payments_service.ways import Way, wallet_in

# Africa/Harare has been two hours ahead of UTC since 1903 and keeps no summer time; a container may lack zone files.
HARARE = timezone(timedelta(hours=2))

# Asking the gateway once more may help: money may be on its way from a page or a prompt that was left open.
_CHECKABLE = frozenset(
    {
        State.READY,
        State.EXPIRED,
        State.CANCELLED,
        State.UNANSWERED,
        State.CODE_OVER,
        State.CHOOSING,
        State.ASKING,
        State.NOT_SET_UP,
    }
)
_LOOK_AGAIN = frozenset(
    {State.STARTING, State.WAITING, State.STILL_WAITING, State.UNDER_WAY, State.PROMPTED, State.CODE, State.OTP}
)
# Another way can be chosen while this one is open.
_REPLACEABLE = frozenset({State.WAITING, State.STILL_WAITING, State.PROMPTED, State.CODE, State.OTP})
# What no line's end may tear apart.
_WHOLE = frozenset({"amount", "refunded", "phone"})
# So many ways are shown under headings.
MANY = 4
_NO_FAULT = {"way": "", "phone": "", "otp": ""}
# Their words speak of the request on the phone already.
_TOLD = frozenset({State.PROMPTED, State.CHOOSING})
_STEPS = {State.PROMPTED: ApproveOnPhone, State.CODE: ShowCode, State.OTP: EnterOtp}
_HINTS = {
    Redirect: "hint_redirect",
    ApproveOnPhone: "hint_approve_on_phone",
    ShowCode: "hint_show_code",
    EnterOtp: "hint_enter_otp",
}

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PAGES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.globals["style"] = STYLE
_templates.globals["script"] = SCRIPT
_PAGE = _templates.get_template("pay.html")
_MESSAGE = _templates.get_template("message.html")

Facts = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scene:
    """All that one answer of the page is drawn from.

    `ways` are asked for where the state is one of CHOICES; `posted` are the fields as they were sent, `fault` what is
    wrong with which of them; `tried` is what customers call the way that was just tried in vain; `kept` makes a receipt
    to keep: without links that lead nowhere from a file.
    """

    row: Row
    visit: Visit
    state: State
    step: NextStep | None = None
    ways: Sequence[Way] = ()
    posted: Mapping[str, str] = field(default_factory=dict)
    fault: Mapping[str, str] = field(default_factory=dict)
    tried: str | None = None
    kept: bool = False


def draw(context: Context, scene: Scene) -> str:
    """The page as HTML."""
    row, state, labels = scene.row, scene.state, ENGLISH.labels
    names = _names(context, scene)
    if scene.tried:
        names = {**names, "gateway": scene.tried}
    words = _words(state, names)
    money = money_of(row)
    currency, _, figure = money.shown().partition(" ")
    receipt = state in RECEIPTS
    return _PAGE.render(
        language=ENGLISH,
        labels={**labels, **{name: labels[name].format(**names) for name in ("open_app", "instructions", "chat")}},
        title=f"{words.title} · {money.shown()}" + (f" · {row['display_name']}" if row["display_name"] else ""),
        preview=_preview(context, row, state, names),
        refresh=None if scene.kept else scene.visit.refresh(state),
        token=scene.visit.token,
        here=scene.visit.here,
        version=version_of(row, scene.step, context.clock()),
        watch=watch(state),
        payee=row["display_name"],
        currency=currency,
        figure=figure,
        words=words,
        notice=labels["prompt_open"] if row["prompts"] > (state in _TOLD) and not scene.kept else None,
        receipt=receipt,
        number=row["id"],
        facts=_facts(row, names, receipt=receipt),
        kept=context.page_url(row["page_token"]) if scene.kept else None,
        chat=f"https://wa.me/{row['whatsapp_number'].lstrip('+')}" if row["whatsapp_number"] else None,
        tries=row["tries"],
        fault={**_NO_FAULT, **scene.fault},
        step=_step(scene, names, context.clock()),
        **_choice(scene, names),
        **_actions(context, scene, names),
    )


def draw_message(state: State) -> str:
    """A page without a payment on it."""
    labels = ENGLISH.labels
    words = _words(state, {"payee": labels["the_payee"], "gateway": labels["the_gateway"]})
    return _MESSAGE.render(language=ENGLISH, labels=labels, title=words.title, refresh=None, words=words)


def _names(context: Context, scene: Scene) -> Mapping[str, str]:
    """What the texts' braces stand for: `gateway` who does it, in the customer's eyes, `account` through whom."""
    row, labels = scene.row, ENGLISH.labels
    # Where the customer may choose, and all ways are one gateway's, it is known before the choice.
    offered = {way.gateway for way in scene.ways}
    name = row["attempt_gateway"] or row["gateway"] or (offered.pop() if len(offered) == 1 else "")
    account = context.gateways[name].title if name in context.gateways else labels["the_gateway"]
    method = method_of(context, name, row["attempt_method"] or "")
    # On a page of the gateway's own it is the gateway that acts, whatever the money comes from there.
    wallet = method and method.step is not Redirect
    return {
        "payee": row["display_name"] or labels["the_payee"],
        "gateway": method.title if method and wallet else account,
        "account": account,
        "method": method.title if method and wallet else account,
        "amount": money_of(row).shown(),
        "refunded": Money(row["refunded_cents"], Currency(row["currency"])).shown(),
        "expires": clock_time(row["expires_at"]),
        "phone": local(row["attempt_phone"]) if row["attempt_phone"] else labels["your_phone"],
    }


def _words(state: State, names: Mapping[str, str]) -> Words:
    words = ENGLISH.states[state]
    names = {name: text.replace(" ", "\N{NO-BREAK SPACE}") if name in _WHOLE else text for name, text in names.items()}
    title, meaning = words.title.format(**names), words.meaning.format(**names)
    return Words(words.tone, title[:1].upper() + title[1:], meaning[:1].upper() + meaning[1:])


def _preview(context: Context, row: Row, state: State, names: Mapping[str, str]) -> dict[str, object]:
    """What a chat shows of the link, and keeps: payee, amount and reference. What the tenant wrote of the payment may
    name the customer."""
    labels = ENGLISH.labels
    payable = row["status"] in PAYABLE and state is not State.EXPIRED
    kind = "paid" if state is State.PAID else "pay" if payable else "over"
    return {
        "title": labels[f"preview_{kind}"].format(**names),
        "text": labels["preview_text"].format(reference=row["reference"]),
        "image": f"{context.public_url}/preview.png",
        "size": PREVIEW_SIZE,
    }


def _facts(row: Row, names: Mapping[str, str], *, receipt: bool) -> Facts:
    """The lines below the amount: what it is for, and of a receipt how it was paid."""
    labels = ENGLISH.labels
    facts: Facts = [(labels["reference"], row["reference"])]
    if row["description"]:
        facts.insert(0, (labels["description"], row["description"]))
    if not receipt:
        return facts
    if row["paid_at"]:
        facts.append((labels["paid_at"], clock_time(row["paid_at"])))
    if row["gateway"]:
        through = names["account"] if names["method"] == names["account"] else labels["through"].format(**names)
        facts.append((labels["paid_through"], through))
    if row["gateway_reference"]:
        facts.append((labels["gateway_reference"].format(**names), row["gateway_reference"]))
    if row["refunded_cents"]:
        facts.append((labels["refunded"], names["refunded"]))
    return facts


def _step(scene: Scene, names: Mapping[str, str], now: datetime) -> dict[str, Any] | None:
    """The open try's next step, where the state shows it."""
    labels = ENGLISH.labels
    if not isinstance(scene.step, _STEPS.get(scene.state, ())):
        return None
    match scene.step:
        case ApproveOnPhone(instructions=instructions):
            return {"kind": "approve_on_phone", "instructions": instructions}
        case ShowCode():
            return _code(scene.step, now)
        case EnterOtp(reference=reference, tries=tries):
            known = labels["otp_reference"].format(reference=reference) if reference else ""
            return {"kind": "enter_otp", "reference": known, "tries": tries}
    return None


def _code(step: ShowCode, now: datetime) -> dict[str, Any]:
    """A code to type, to open the app with, to dial and to scan, with the time that is left for that."""
    labels, ends = ENGLISH.labels, step.expires_at
    # Where the end is past and the code is shown all the same, the gateway's clock may be another: nothing is said.
    left = max(0, math.ceil((ends - now).total_seconds())) if ends else 0
    # Not the micro kind, which wallets' cameras do not read.
    drawn = segno.make_qr(step.code, error="m").svg_inline(omitsize=True, border=3, light="#fff", svgclass=None)
    return {
        "kind": "show_code",
        "code": _in_groups(step.code),
        "until": labels["code_until"].format(time=f"{ends.astimezone(HARARE):%H:%M}") if ends and left else "",
        "left": left,
        "over": ENGLISH.states[State.CODE_OVER].title,
        "app_url": step.app_url,
        "dial": labels["dial"].format(dial=step.dial) if step.dial else "",
        "qr": Markup(drawn),  # noqa: S704 - digits, drawn by segno
    }


def _in_groups(digits: str) -> str:
    """Of three or four, none left over: `701 285 660`, `7012 8566`."""
    groups = max(1, len(digits) // 3)
    ends = [place * len(digits) // groups for place in range(groups + 1)]
    return " ".join(digits[start:end] for start, end in pairwise(ends))


def _choice(scene: Scene, names: Mapping[str, str]) -> dict[str, Any]:
    """The ways to pay, which of them is chosen already, and what stands in the phone field."""
    labels = ENGLISH.labels
    ways = scene.ways if scene.state in CHOICES else ()
    chosen = _chosen(scene, ways)
    headings = _headings(ways)
    shown = [
        {
            "key": way.key,
            "title": way.method.title,
            "hint": labels.get(f"hint_{way.method.name}", labels[_HINTS[way.method.step]]),
            "asks": way.method.needs_phone,
            "leaves": way.method.step is Redirect,
            "chosen": way is chosen,
            "heading": headings[place],
        }
        for place, way in enumerate(ways)
    ]
    return {"ways": shown, "phone": _phone(scene), "button": _button(scene, names) if ways else None}


def _headings(ways: Sequence[Way]) -> list[str]:
    """What stands above each way: mostly nothing. Few ways need no headings; of many, the first wallet has one, and the
    first of the rest."""
    kinds = ["wallet" if way.method.kind is Kind.WALLET else "other" for way in ways]
    if len(ways) < MANY or len(set(kinds)) < 2:
        return [""] * len(ways)
    return [ENGLISH.labels[f"kind_{kind}"] if kind not in kinds[:place] else "" for place, kind in enumerate(kinds)]


def _chosen(scene: Scene, ways: Sequence[Way]) -> Way | None:
    """The way that is chosen already: the one that was posted, else tried, through whichever gateway; of other ways,
    another."""
    row = scene.row
    tried = wallet_in(tried_key(row))
    # A link that was made for a gateway has its page open already: nobody has chosen that yet.
    untouched = row["tries"] < 2 and scene.state is State.READY
    others = [way.wallet for way in ways if way.wallet != tried]
    wanted = others if scene.state is State.CHOOSING else [] if untouched else [tried]
    by_wallet = {way.wallet: way for way in ways}
    for wallet in (wallet_in(scene.posted.get("way", "")), *wanted, *by_wallet):
        if wallet in by_wallet:
            return by_wallet[wallet]
    return None


def _button(scene: Scene, names: Mapping[str, str]) -> str:
    labels = ENGLISH.labels
    verb = "pay" if scene.state in (State.READY, State.CHOOSING) else "try"
    if len(scene.ways) > 1:
        return labels["pay_amount" if verb == "pay" else "try_now"].format(**names)
    return labels[f"{verb}_with"].format(gateway=scene.ways[0].method.title)


def _phone(scene: Scene) -> str:
    """As it was typed; else the number that was tried, else the contact's if a wallet can be behind it."""
    if "phone" in scene.posted:
        return scene.posted["phone"]
    known = scene.row["attempt_phone"] or scene.row["contact_phone"]
    try:
        return local(parse_mobile(known)) if known else ""
    except ValueError:
        return ""


def _actions(context: Context, scene: Scene, names: Mapping[str, str]) -> dict[str, Any]:
    """The way back to the gateway's page, the link that asks the gateway again, and the one to another way to pay."""
    row, state, labels = scene.row, scene.state, ENGLISH.labels
    alive = context.clock() < row["expires_at"]
    go_on = check = None
    if isinstance(scene.step, Redirect) and state in (State.WAITING, State.STILL_WAITING) and alive:
        go_on = {"way": tried_key(row), "text": labels["go_back_to"].format(**names)}
    if state in _LOOK_AGAIN:
        check = labels["check_again" if state is State.STILL_WAITING else "look_again"]
    elif state in _CHECKABLE and row["attempt_state"] in ("starting", "live", "replaced"):
        check = labels["already_paid"]
    return {
        "go_on": go_on,
        "check": check,
        "other": alive and state in _REPLACEABLE and row["attempt_state"] == "live",
        "next_step": labels["next_step"].format(**names),
    }


def clock_time(moment: datetime) -> str:
    """A moment for people in Zimbabwe: `24 November 2026, 14:05 (Harare, UTC+2)`."""
    local_time = moment.astimezone(HARARE)
    return ENGLISH.labels["clock"].format(
        day=local_time.day,
        month=ENGLISH.months[local_time.month - 1],
        year=local_time.year,
        time=f"{local_time:%H:%M}",
    )
