"""What a request to send must hold: read as strictly as Meta reads it, into a draft, or refused with its error."""

from __future__ import annotations

import re
from typing import Literal, TypeVar

import msgspec

from payments_service.sandbox import whatsapp_errors as errors
from payments_service.sandbox.whatsapp_errors import Refusal
from payments_service.sandbox.whatsapp_messages import Draft, Sender, Template

LONGEST_TEXT = 4096
LONGEST_CALLBACK_DATA = 512
_LONGEST_BODY = 1024  # of a template's body, its parameters filled in
_LONGEST_LINK = 2000

_PHONE = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_FORBIDDEN = re.compile(r"[\n\r\t]| {5}")
_LINK = re.compile(r"https?://\S+")
_MISSING = "Object missing required field"


class _Parameter(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    text: str = ""


class _Component(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["header", "body", "button"]
    parameters: list[_Parameter] = []
    sub_type: str = ""
    index: str = ""


class _Language(msgspec.Struct, forbid_unknown_fields=True):
    code: str
    policy: Literal["deterministic"] = "deterministic"


class _Template(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    language: _Language
    components: list[_Component] = []


class _Text(msgspec.Struct, forbid_unknown_fields=True):
    body: str
    preview_url: bool = False


class _Envelope(msgspec.Struct):
    """What every message has; the rest depends on its type."""

    messaging_product: Literal["whatsapp"]
    to: str
    type: Literal["template", "text"] = "text"


class _TemplateMessage(msgspec.Struct, forbid_unknown_fields=True):
    messaging_product: str
    to: str
    type: str
    template: _Template
    recipient_type: Literal["individual"] = "individual"
    biz_opaque_callback_data: str = ""


class _TextMessage(msgspec.Struct, forbid_unknown_fields=True):
    messaging_product: str
    to: str
    text: _Text
    type: str = "text"
    recipient_type: Literal["individual"] = "individual"
    biz_opaque_callback_data: str = ""


_Shape = TypeVar("_Shape", bound=msgspec.Struct)


def read(body: bytes, sender: Sender, button_url: str) -> Draft:
    """The message that this body asks this number to send; `button_url` is for templates that have no own.

    Raises Refusal.
    """
    if _decode(body, _Envelope).type == "template":
        asked = _decode(body, _TemplateMessage)
        _check_addressing(asked.to, asked.biz_opaque_callback_data)
        return _template(asked, sender, button_url)
    plain = _decode(body, _TextMessage)
    _check_addressing(plain.to, plain.biz_opaque_callback_data)
    return _text(plain)


def _decode(body: bytes, shape: type[_Shape]) -> _Shape:
    """The codes are what Meta uses for such faults, the words are not [?]."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = str(error)
        raise Refusal(errors.missing(text) if text.startswith(_MISSING) else errors.invalid(text)) from None


def _check_addressing(to: str, callback_data: str) -> None:
    # The real one also takes numbers without `+` and mends some: the protocol page asks for E.164 with it.
    if not _PHONE.fullmatch(to):
        raise Refusal(errors.wrong_value("to is not a phone number in E.164 with its +"))  # [?] which code
    if len(callback_data) > LONGEST_CALLBACK_DATA:
        raise Refusal(errors.invalid(f"biz_opaque_callback_data has more than {LONGEST_CALLBACK_DATA} characters"))


def _text(asked: _TextMessage) -> Draft:
    body = asked.text.body
    if not body.strip():
        raise Refusal(errors.invalid("Param text['body'] must be a non-empty string."))
    if len(body) > LONGEST_TEXT:
        raise Refusal(errors.invalid(f"Param text['body'] must be at most {LONGEST_TEXT} characters long."))
    found = _LINK.search(body)
    link = found[0] if found else ""
    data = asked.biz_opaque_callback_data
    return Draft(asked.to, "text", body, link, preview=asked.text.preview_url, callback_data=data)


def _template(asked: _TemplateMessage, sender: Sender, button_url: str) -> Draft:
    name, language = asked.template.name, asked.template.language.code
    template = sender.templates.get((name, language))
    if template is None:
        raise Refusal(errors.unknown_template(name, language))
    components = asked.template.components
    if any(one.type == "header" for one in components):
        raise Refusal(errors.wrong_count("header", 1, 0))
    body = template.filled(_body_parameters(template, components))
    if len(body) > _LONGEST_BODY:
        raise Refusal(errors.too_long(f"body: the translated text has more than {_LONGEST_BODY} characters"))
    # The real one draws cards of links in texts only; here the button's link has one too, to be looked at.
    return Draft(
        asked.to,
        "template",
        body,
        _button_link(template, components, button_url),
        template.button,
        preview=bool(template.button),
        template=name,
        language=language,
        category=template.category,
        callback_data=asked.biz_opaque_callback_data,
    )


def _body_parameters(template: Template, components: list[_Component]) -> list[str]:
    bodies = [one for one in components if one.type == "body"]
    parameters = [parameter for one in bodies for parameter in one.parameters]
    if len(parameters) != template.variables or len(bodies) > 1:
        raise Refusal(errors.wrong_count("body", len(parameters), template.variables))
    return [_value("body", one) for one in parameters]


def _button_link(template: Template, components: list[_Component], button_url: str) -> str:
    """The button's URL with the suffix that was sent in the place of its one variable."""
    buttons = [one for one in components if one.type == "button"]
    expected = 1 if template.button else 0
    if len(buttons) > expected or any((one.sub_type, one.index) != ("url", "0") for one in buttons):
        raise Refusal(errors.wrong_format("buttons: the template has no such button"))
    parameters = [parameter for one in buttons for parameter in one.parameters]
    if expected and not parameters:
        raise Refusal(errors.missing("buttons: Button at index 0 of type Url requires a parameter"))
    if len(parameters) != expected:
        raise Refusal(errors.wrong_count("buttons", len(parameters), expected))
    if not expected:
        return ""
    link = (template.url or button_url).replace("{{1}}", _value("buttons", parameters[0]))
    if len(link) > _LONGEST_LINK:
        raise Refusal(errors.too_long(f"buttons: the URL has more than {_LONGEST_LINK} characters"))
    return link


def _value(part: str, parameter: _Parameter) -> str:
    if parameter.type != "text":
        raise Refusal(errors.wrong_format(f"{part}: Parameter of type {parameter.type} is not text"))
    if not parameter.text:
        raise Refusal(errors.missing(f"{part}: Parameter of type text is missing text value"))
    if _FORBIDDEN.search(parameter.text):
        raise Refusal(errors.forbidden_characters())
    return parameter.text
