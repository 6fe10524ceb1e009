"""Settings: what is read, what is refused, and that no fault ever shows a secret."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import payments_service
from payments_service.config import (
    VARIABLES,
    Bind,
    ConfigError,
    Environment,
    Rate,
    ServiceToken,
    Settings,
    from_environment,
    load,
)
from payments_service.strength import weakness_of

# Random, so that none is weak; planted again wherever a test looks for leaks.
SECRET = "Zq7vK2mXw9TgBn4RcYd8LpHs3JfUeA6x"
PREVIOUS = "Old1vK2mXw9TgBn4RcYd8LpHs3JfUeA6"
TOKEN = "tK5Jr8WzQ2bNvE7yMxC4uHdGpS9LfAa3"
TOKEN_2 = "uM6Ks9XaR3cPwF8zNyD5vJeHqT2MgBb4"
WEBHOOK = "whsec_" + base64.b64encode(bytes(range(7, 249, 8))[:30]).decode()
WEBHOOK_2 = "whsec_" + base64.b64encode(bytes(range(3, 249, 7))[:30]).decode()
DSN = "postgresql://conva:pW5Jr8WzQ2@db-1.internal:5432,db-2.internal:5432/conva?target_session_attrs=read-write"

MINIMAL = {"ENCRYPTION_SECRET": SECRET, "SERVICE_TOKENS": f"backend:{TOKEN}"}
PRODUCTION = {
    **MINIMAL,
    "ENVIRONMENT": "production",
    "DATABASE_URL": DSN,
    "PUBLIC_URL": "https://pay.conva.co.zw",
}

# The contract's table: every name with the default that it promises.
CONTRACT: dict[str, object] = {
    "DATABASE_URL": None,
    "ENVIRONMENT": Environment.DEVELOPMENT,
    "INTERNAL_BIND": Bind("127.0.0.1", 8080),
    "PUBLIC_BIND": Bind("127.0.0.1", 8081),
    "METRICS_BIND": None,
    "PUBLIC_URL": "http://127.0.0.1:8081",
    "APP_URL": None,
    "ENCRYPTION_SECRET": SECRET,
    "ENCRYPTION_SECRET_PREVIOUS": (),
    "SERVICE_TOKENS": (ServiceToken("backend", TOKEN),),
    "EVENTS_URL": None,
    "EVENTS_SECRET": (),
    "STRIPE_WEBHOOK_SECRET": (),
    "PAYNOW_URL": "https://www.paynow.co.zw",
    "ECOCASH_URL": "https://developers.ecocash.co.zw/api/ecocash_pay",
    "ECOCASH_MODE": "live",
    "ECOCASH_REFUND_BY": "source",
    "ECOCASH_ZIG_CODE": "ZiG",
    "ECOCASH_EIP_URL": "https://payonline.econet.co.zw/ecocashGateway/payment/v1",
    "ECOCASH_PORTAL_URL": "https://developers.ecocash.co.zw/sandbox/payment/v1",
    "ECOCASH_REFUND_TYPE": "REF",
    "INNBUCKS_URL": None,
    "INNBUCKS_INQUIRY_PATH": "/api/code/inquiry",
    "INNBUCKS_APP_LINK": "com.innbucks.customer://purchase?paymentToken={code}",
    "INNBUCKS_DIAL": "*569#",
    "STRIPE_URL": "https://api.stripe.com",
    "WHATSAPP_URL": "https://graph.facebook.com",
    "WHATSAPP_APP_SECRET": None,
    "WHATSAPP_VERIFY_TOKEN": None,
    "WHATSAPP_PHONE_NUMBER_ID": None,
    "WHATSAPP_ACCESS_TOKEN": None,
    "WHATSAPP_TEMPLATE": None,
    "WHATSAPP_API_VERSION": "v26.0",
    "CREATE_LINK_RATE": Rate(10, 60),
    "CHECK_SCHEDULE": None,
    "EVENTS_SCHEDULE": (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400),
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "console",
}
FIELD = {variable.name: variable.field for variable in VARIABLES}
SECRETS = [variable.name for variable in VARIABLES if variable.secret]
URLS = [name for name in CONTRACT if name.endswith("_URL") and name != "DATABASE_URL"]


def read(name: str, text: str) -> object:
    """What the variable becomes; whatever else it needs is there."""
    companions = {
        "EVENTS_URL": {"EVENTS_SECRET": WEBHOOK},
        "WHATSAPP_PHONE_NUMBER_ID": {"WHATSAPP_ACCESS_TOKEN": TOKEN},
    }
    return getattr(load({**MINIMAL, **companions.get(name, {}), name: text}), FIELD[name])


def faults(**changes: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load({**MINIMAL, **changes})
    return caught.value.faults


def production_faults(**changes: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load({**PRODUCTION, **changes})
    return caught.value.faults


# --- the list -----------------------------------------------------------------------------------------------------


def test_every_variable_of_the_contract_is_there_with_its_default() -> None:
    """With only what is required, every setting has the contract's default."""
    settings = load(MINIMAL)
    assert {name: getattr(settings, field) for name, field in FIELD.items()} == CONTRACT


def test_each_variable_is_listed_once_and_explained() -> None:
    """One row per variable and per field, each with a meaning for the README."""
    assert len({variable.name for variable in VARIABLES}) == len(VARIABLES) == len(Settings.__dataclass_fields__)
    assert all(variable.meaning for variable in VARIABLES)


def test_whatever_is_called_a_secret_is_treated_as_one() -> None:
    """A variable whose name speaks of secrets or tokens, and the database's URL with its password, is never shown."""
    telling = re.compile(r"SECRET|TOKEN|DATABASE_URL")
    assert set(SECRETS) == {name for name in CONTRACT if telling.search(name)}


def test_empty_and_blank_variables_count_as_not_set() -> None:
    """Compose files and charts write empty variables: they change nothing."""
    for blank in ("", " ", "\n"):
        assert load(dict.fromkeys(CONTRACT, blank) | MINIMAL) == load(MINIMAL)


def test_unknown_variables_are_ignored() -> None:
    """The environment holds much that is not ours."""
    assert load({**MINIMAL, "PATH": "/bin", "PAYNOW_ULR": "x"}) == load(MINIMAL)


def test_settings_cannot_be_changed() -> None:
    """Settings are read once and then are a value."""
    with pytest.raises(AttributeError):
        load(MINIMAL).log_level = "debug"  # type: ignore[misc]


def test_log_format_depends_on_the_environment_unless_given() -> None:
    """JSON in production, readable lines in development, and what is written wins in both."""
    assert load(MINIMAL).log_format == "console"
    assert load(PRODUCTION).log_format == "json"
    assert load({**MINIMAL, "LOG_FORMAT": "json"}).log_format == "json"
    assert load({**PRODUCTION, "LOG_FORMAT": "console"}).log_format == "console"


def test_from_environment_reads_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """from_environment is load over the variables of this process."""
    for name in CONTRACT:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError):
        from_environment()
    for name, text in PRODUCTION.items():
        monkeypatch.setenv(name, text)
    assert from_environment() == load(PRODUCTION)


def test_the_environment_is_read_in_config_only() -> None:
    """No other module of the package reads a variable on its own; one is taken away before a library reads it."""
    root = Path(payments_service.__file__).parent
    reading = re.compile(r"\benviron\b|\bgetenv\b")
    readers = {p.relative_to(root).as_posix() for p in root.rglob("*.py") if reading.search(p.read_text("utf-8"))}
    assert readers == {"config.py", "__init__.py"}


# --- parsers: good and bad ----------------------------------------------------------------------------------------

BODY_24, BODY_64 = base64.b64encode(bytes(range(24))).decode(), base64.b64encode(bytes(range(64))).decode()

GOOD: list[tuple[str, str, object]] = [
    ("ENVIRONMENT", "Development", Environment.DEVELOPMENT),
    ("DATABASE_URL", DSN, DSN),
    ("DATABASE_URL", "postgres://u@h/d", "postgres://u@h/d"),
    ("DATABASE_URL", "postgresql:///conva?host=/run/postgresql", "postgresql:///conva?host=/run/postgresql"),
    ("INTERNAL_BIND", "0.0.0.0:9000", Bind("0.0.0.0", 9000)),
    ("INTERNAL_BIND", "[::1]:9000", Bind("::1", 9000)),
    ("INTERNAL_BIND", "payments.internal:65535", Bind("payments.internal", 65535)),
    ("PUBLIC_BIND", "localhost:0", Bind("localhost", 0)),
    ("METRICS_BIND", "0.0.0.0:9100", Bind("0.0.0.0", 9100)),
    ("PUBLIC_URL", "http://localhost:8081/", "http://localhost:8081"),
    ("PUBLIC_URL", " https://pay.conva.co.zw/p// ", "https://pay.conva.co.zw/p"),
    ("APP_URL", "http://[::1]:3000", "http://[::1]:3000"),
    ("EVENTS_URL", "http://my_backend:8000/hooks/payments", "http://my_backend:8000/hooks/payments"),
    ("INNBUCKS_URL", "https://staging.innbucks.co.zw", "https://staging.innbucks.co.zw"),
    ("INNBUCKS_INQUIRY_PATH", "/api/code/query", "/api/code/query"),
    (
        "INNBUCKS_APP_LINK",
        "schinn.wbpycode://innbucks.co.zw?pymInnCode={code}",
        "schinn.wbpycode://innbucks.co.zw?pymInnCode={code}",
    ),
    ("ENCRYPTION_SECRET", f" {SECRET},\n", f" {SECRET},\n"),
    ("ENCRYPTION_SECRET_PREVIOUS", PREVIOUS, (PREVIOUS,)),
    ("ENCRYPTION_SECRET_PREVIOUS", f"{PREVIOUS},short,with%2Ccomma", (PREVIOUS, "short", "with,comma")),
    ("ENCRYPTION_SECRET_PREVIOUS", f"{PREVIOUS}\n", (f"{PREVIOUS}\n",)),
    ("SERVICE_TOKENS", f" a:{TOKEN} , b:{TOKEN_2}== ", (ServiceToken("a", TOKEN), ServiceToken("b", TOKEN_2 + "=="))),
    ("EVENTS_SECRET", f"{WEBHOOK}, {WEBHOOK_2}", (WEBHOOK, WEBHOOK_2)),
    ("EVENTS_SECRET", f"whsec_{BODY_24},whsec_{BODY_64}", (f"whsec_{BODY_24}", f"whsec_{BODY_64}")),
    ("STRIPE_WEBHOOK_SECRET", "whsec_short", ("whsec_short",)),
    ("STRIPE_WEBHOOK_SECRET", "whsec_new, whsec_old", ("whsec_new", "whsec_old")),
    ("ECOCASH_MODE", "sandbox", "sandbox"),
    ("ECOCASH_REFUND_BY", "Ecocash", "ecocash"),
    ("ECOCASH_REFUND_TYPE", "REV", "REV"),
    ("ECOCASH_ZIG_CODE", "ZWG", "ZWG"),
    ("INNBUCKS_DIAL", "*569*1#", "*569*1#"),
    ("WHATSAPP_PHONE_NUMBER_ID", "106540352242922", "106540352242922"),
    ("WHATSAPP_TEMPLATE", "payment_request", "payment_request"),
    ("WHATSAPP_API_VERSION", "v27.1", "v27.1"),
    ("CREATE_LINK_RATE", "1/second", Rate(1, 1)),
    ("CREATE_LINK_RATE", "20 / minute", Rate(20, 60)),
    ("CREATE_LINK_RATE", "1000/hour", Rate(1_000, 3_600)),
    ("CREATE_LINK_RATE", "5/day", Rate(5, 86_400)),
    ("CHECK_SCHEDULE", "3, 5,60 ,2678400", (3, 5, 60, 2_678_400)),
    ("EVENTS_SCHEDULE", "1", (1,)),
    ("LOG_LEVEL", "DEBUG", "debug"),
    *(("LOG_LEVEL", level, level) for level in ("debug", "info", "warning", "error", "critical")),
    ("LOG_FORMAT", "json", "json"),
]

BAD: dict[str, list[str]] = {
    "ENVIRONMENT": ["prod", "development production"],
    "DATABASE_URL": ["mysql://h/d", "postgresql+psycopg://h/d", "postgresql://", "postgresql://h/a b", "host=h"],
    "INTERNAL_BIND": ["8080", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:80", "[::g]:1", "[1.2.3.4]:1"],
    "PUBLIC_BIND": ["127.0.0.1:80a", "a b:80", "http://127.0.0.1:80", "127.0.0.1:\u0668\u0660", "-:80"],
    "METRICS_BIND": ["9100", "127.0.0.1"],
    "INNBUCKS_INQUIRY_PATH": ["api/code", "/", "/api/../code", "/api//code", "/api?x=1", "/api/cödé", "//other.host/x"],
    "INNBUCKS_APP_LINK": ["com.innbucks.customer://purchase", "{code}", "x://{code} y", "1x:{code}", "x://{CODE}"],
    "ENCRYPTION_SECRET": ["short", "x" * 31],
    "ENCRYPTION_SECRET_PREVIOUS": [",", "a,,b", "a, b", "a,", " a"],
    "SERVICE_TOKENS": [
        TOKEN, f":{TOKEN}", "a:", "a:short", f"a:{TOKEN},", f"a b:{TOKEN}", f"a:{TOKEN}é", f"{'n' * 65}:{TOKEN}",
        f"a:{TOKEN[:31]}", f"a:={TOKEN}", f"a:{TOKEN};b:{TOKEN_2}",
    ],
    "EVENTS_SECRET": [
        BODY_24, "whsec_", "whsec_AAAA", f"WHSEC_{BODY_24}", f"whsec_{BODY_24}*", f"{WEBHOOK},", f"whsec_{BODY_24}é",
        "whsec_" + base64.b64encode(bytes(23)).decode(), "whsec_" + base64.b64encode(bytes(65)).decode(),
    ],
    "STRIPE_WEBHOOK_SECRET": ["whsec_a b", "whsec_é", "a\nb", "whsec_a,", "whsec_a,,whsec_b"],
    "ECOCASH_MODE": ["test"],
    "ECOCASH_REFUND_BY": ["uuid"],
    "ECOCASH_REFUND_TYPE": ["RE F", "R1"],
    "ECOCASH_ZIG_CODE": ["840", "ZI", "Z\u0131G"],
    "INNBUCKS_DIAL": ["569 #", "call *569#", "#"],
    "WHATSAPP_APP_SECRET": ["a\tb"],
    "WHATSAPP_API_VERSION": ["26.0", "v26", "v26.0/../x"],
    "CREATE_LINK_RATE": ["10", "0/minute", "-1/minute", "1.5/minute", "9/years", "1001/day", "\u0661/day"],
    "CHECK_SCHEDULE": ["0", "-1", "5s", "5,,6", "5,", "1.5", "2678401", "99999999", "\u0665"],
    "EVENTS_SCHEDULE": ["five"],
    "LOG_LEVEL": ["verbose"],
    "LOG_FORMAT": ["xml"],
}  # fmt: skip
BAD_URLS = [
    "pay.conva.co.zw", "ftp://h", "https://", "https:///path", "https://user:pw@h", "https://user@h", "https://h?x=1",
    "https://h/p#f", "https://h/p?", "https://h:0", "https://h:65536", "https://h:x", "https://h h", "https://[::g]",
    "https://h\\@evil", "https://ö.example", "https://h/\u200b", "https://h\nx", "javascript:alert(1)", "https://-",
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_good_values_are_read(name: str, text: str, value: object) -> None:
    """Each parser reads what the contract allows, without surrounding blanks and trailing slashes."""
    assert read(name, text) == value


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_bad_values_are_one_fault_of_their_variable(name: str, text: str) -> None:
    """A bad value is one fault, led by the name of its variable."""
    found = [fault for fault in faults(**{name: text}) if fault.startswith(f"{name} ")]
    assert len(found) == 1


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("text", BAD_URLS)
def test_bad_urls_are_faults(name: str, text: str) -> None:
    """Every URL setting takes http(s), host and path only."""
    assert faults(**{name: text})[0].startswith(f"{name} must be https://")


@pytest.mark.parametrize("name", CONTRACT)
def test_bytes_that_are_not_utf8_are_a_fault(name: str) -> None:
    """os.environ gives undecodable bytes as lone surrogates: refused, before anything tries to encode them."""
    assert f"{name} is not valid UTF-8" in faults(**{name: SECRET + "\udcff"})


@given(st.dictionaries(st.sampled_from(sorted(CONTRACT)), st.text(max_size=60)))
def test_any_text_is_read_or_a_fault(environ: dict[str, str]) -> None:
    """Whatever the environment holds, the only error is ConfigError."""
    try:
        load(environ)
    except ConfigError as error:
        assert error.faults  # noqa: PT017  # it may also be read


def test_a_bind_is_shown_as_it_is_written() -> None:
    """str(bind) reads back as the same bind, IPv6 too."""
    for text in ("127.0.0.1:8080", "[::1]:8080", "host:1"):
        assert str(read("INTERNAL_BIND", text)) == text


# --- faults across variables, and all of them together --------------------------------------------------------------


def test_required_variables() -> None:
    """Development too needs the encryption secret and the service tokens."""
    with pytest.raises(ConfigError) as caught:
        load({})
    assert [fault.split()[0] for fault in caught.value.faults] == ["ENCRYPTION_SECRET", "SERVICE_TOKENS"]


def test_all_faults_are_reported_together() -> None:
    """One start shows everything there is to repair, one line each."""
    environ = {name: texts[0] for name, texts in BAD.items()} | dict.fromkeys(URLS, "nonsense")
    with pytest.raises(ConfigError) as caught:
        load(environ)
    named = {fault.split()[0] for fault in caught.value.faults}
    assert named >= environ.keys()
    assert str(caught.value) == "\n".join(
        ["The settings cannot be used:", *(f"- {fault}" for fault in caught.value.faults)]
    )


def test_all_faults_of_one_variable_are_reported_together() -> None:
    """Several bad tokens are several faults, each with its place, and the good ones are still compared."""
    text = f"nonsense,a:short,b:{TOKEN},b:{TOKEN}"
    assert [re.sub(r" must.*| shorter.*|: .*", "", fault) for fault in faults(SERVICE_TOKENS=text)] == [
        "SERVICE_TOKENS entry 1",
        "SERVICE_TOKENS entry 2 has a token",
        "SERVICE_TOKENS names one caller twice",
        "SERVICE_TOKENS gives one token to two callers",
    ]


def test_one_name_or_one_token_for_two_callers_is_a_fault() -> None:
    """A caller is told by its token and shown by its name: both must be its own."""
    assert "names one caller twice" in faults(SERVICE_TOKENS=f"a:{TOKEN},a:{TOKEN_2}")[0]
    assert "gives one token to two callers" in faults(SERVICE_TOKENS=f"a:{TOKEN},b:{TOKEN}")[0]


@pytest.mark.parametrize(
    ("internal", "public", "fine"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", False),
        ("127.0.0.1:80", "0.0.0.0:80", False),
        ("[::]:80", "127.0.0.1:80", False),
        ("10.0.0.1:80", "10.0.0.2:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", True),
        ("127.0.0.1:0", "127.0.0.1:0", True),
    ],
)
def test_the_two_listeners_do_not_share_a_port(internal: str, public: str, fine: bool) -> None:
    """Equal or overlapping addresses are a fault; a port of 0 is another one each time."""
    environ = {**MINIMAL, "INTERNAL_BIND": internal, "PUBLIC_BIND": public}
    if fine:
        load(environ)
    else:
        assert [fault.split()[0] for fault in faults(**environ)] == ["PUBLIC_BIND"]


@pytest.mark.parametrize("taken", ["INTERNAL_BIND", "PUBLIC_BIND"])
def test_the_metrics_have_a_port_of_their_own(taken: str) -> None:
    """Where they stand besides, whatever part runs."""
    (fault,) = faults(**{**MINIMAL, taken: "127.0.0.1:90", "METRICS_BIND": "127.0.0.1:90"})
    assert fault == f"METRICS_BIND takes the port of {taken}: give each listener its own port"


def test_public_bind_may_not_take_the_default_of_internal_bind() -> None:
    """The defaults count in the comparison."""
    assert faults(PUBLIC_BIND="127.0.0.1:8080")


def test_events_need_a_secret() -> None:
    """EVENTS_URL alone is a fault; with a bad secret there is one fault, not two; a secret alone harms nobody."""
    assert [fault.split()[0] for fault in faults(EVENTS_URL="http://backend")] == ["EVENTS_SECRET"]
    assert len(faults(EVENTS_URL="http://backend", EVENTS_SECRET="whsec_AAAA")) == 1
    load({**MINIMAL, "EVENTS_SECRET": WEBHOOK})


def test_whatsapp_number_and_token_belong_together() -> None:
    """Half of the platform's number sends nothing: both or neither."""
    assert faults(WHATSAPP_PHONE_NUMBER_ID="1065")
    assert faults(WHATSAPP_ACCESS_TOKEN=TOKEN)
    assert len(faults(WHATSAPP_PHONE_NUMBER_ID="1065", WHATSAPP_ACCESS_TOKEN="a b")) == 1
    load({**MINIMAL, "WHATSAPP_PHONE_NUMBER_ID": "1065", "WHATSAPP_ACCESS_TOKEN": TOKEN})


# --- production ---------------------------------------------------------------------------------------------------


def test_production_accepts_a_sound_configuration() -> None:
    """Every variable set properly: no fault."""
    settings = load(
        {
            **PRODUCTION,
            **{name: f"https://{name.lower().replace('_', '-')}.conva.co.zw" for name in URLS},
            "ENCRYPTION_SECRET_PREVIOUS": "changeme",
            "EVENTS_SECRET": f"{WEBHOOK},{WEBHOOK_2}",
            "STRIPE_WEBHOOK_SECRET": WEBHOOK,
            "WHATSAPP_APP_SECRET": "3f9a1c7be2d84056af1be97c20d5384e",
            "WHATSAPP_VERIFY_TOKEN": TOKEN,
            "WHATSAPP_PHONE_NUMBER_ID": "106540352242922",
            "WHATSAPP_ACCESS_TOKEN": TOKEN_2,
        }
    )
    assert settings.environment is Environment.PRODUCTION
    # A poor secret of the past must stay readable, or nobody could rotate away from it.
    assert settings.encryption_secret_previous == ("changeme",)


def test_production_needs_its_own_database_and_address() -> None:
    """The defaults of development are refused."""
    with pytest.raises(ConfigError) as caught:
        load({**MINIMAL, "ENVIRONMENT": "production"})
    assert [fault.split()[0] for fault in caught.value.faults] == ["DATABASE_URL", "PUBLIC_URL", "PUBLIC_URL"]
    assert len(production_faults(DATABASE_URL="mysql://h/d")) == 1


@pytest.mark.parametrize("name", URLS)
def test_production_refuses_plain_http(name: str) -> None:
    """Every URL setting must be https in production; in development http is fine."""
    text = "http://sandbox.conva.co.zw"
    found = production_faults(**{name: text, "EVENTS_SECRET": WEBHOOK})
    assert found == [f"{name} is a plain http URL, which production refuses: use https"]
    assert read(name, text) == text
    load({**PRODUCTION, "EVENTS_SECRET": WEBHOOK, name: "HTTPS://sandbox.conva.co.zw"})


LOOPBACKS = ["localhost", "LOCALHOST:81", "pay.localhost", "127.0.0.1", "127.9.9.9:1", "[::1]", "0.0.0.0", "[::]"]


@pytest.mark.parametrize("host", LOOPBACKS)
def test_production_refuses_a_loopback_public_url(host: str) -> None:
    """No gateway and no customer reaches this machine by its own name for itself."""
    assert production_faults(PUBLIC_URL=f"https://{host}/") == [
        "PUBLIC_URL is this machine itself: give the address at which gateways and customers reach it"
    ]
    load({**PRODUCTION, "PUBLIC_URL": "https://notlocalhost.co.zw"})


WEAK = {
    "shorter than 32": ["Zq7vK2mXw9TgBn4RcYd8LpHs3JfUeA6"],
    "fewer than 8 different": ["x" * 40, "ababcbcacabcbacbacbabcabcbacbacb"],
    "repeats one short text": ["Zq7vK2mX" * 4, "Zq7vK2mXw9TgBn4R" * 2, "whsec_" + "Zq7vK2mX" * 4],
    "well-known word": [
        "changeme-Zq7vK2mXw9TgBn4RcYd8LpHs3JfUeA6x", "Zq7vK2mXw9TgBn4R.EXAMPLE.cYd8LpHs3JfUeA6x",
        "Change-Me-Zq7vK2mXw9TgBn4RcYd8LpHs3JfU", "secret-secret-Zq7vK2mXw9TgBn4RcYd8LpHs",
        "demo-only-Zq7vK2mXw9TgBn4RcYd8LpHs3JfU", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "0123456789abcdef0123456789ABCDEFghi", "My PassWord is Zq7vK2mXw9TgBn4RcYd8LpHs".replace(" ", "_"),
    ],
}  # fmt: skip
STRONG = [name for name in SECRETS if name not in ("DATABASE_URL", "ENCRYPTION_SECRET_PREVIOUS", "EVENTS_SECRET")]


@pytest.mark.parametrize(
    ("words", "secret"), [(words, secret) for words, secrets in WEAK.items() for secret in secrets]
)
@pytest.mark.parametrize("name", STRONG)
def test_production_refuses_weak_secrets(name: str, words: str, secret: str) -> None:
    """Short, uniform, repeated and well-known values are refused in production for every secret there is."""
    text = f"backend:{secret}" if name == "SERVICE_TOKENS" else secret
    number = {"WHATSAPP_PHONE_NUMBER_ID": "1065"} if name == "WHATSAPP_ACCESS_TOKEN" else {}
    (fault,) = production_faults(**{name: text}, **number)
    assert fault.startswith(f"{name} ")
    assert words in fault or "32 characters" in fault
    assert secret not in fault


def test_production_refuses_weak_event_secrets() -> None:
    """A key of 24 zero bytes is well-formed, but no secret; a good one beside it does not excuse it."""
    zeros = "whsec_" + base64.b64encode(bytes(24)).decode()
    assert len(production_faults(EVENTS_SECRET=f"{WEBHOOK},{zeros}")) == 1
    load({**MINIMAL, "EVENTS_SECRET": zeros})


def test_development_accepts_weak_but_long_secrets() -> None:
    """Development asks for the length only."""
    load({"ENCRYPTION_SECRET": "x" * 32, "SERVICE_TOKENS": f"a:{'y' * 32}"})


def test_a_misspelt_environment_is_held_to_the_strict_rules() -> None:
    """ENVIRONMENT=prod does not start with the rules of development, and its other faults show at once."""
    found = faults(ENVIRONMENT="prod")
    assert [fault.split()[0] for fault in found] == ["ENVIRONMENT", "DATABASE_URL", "PUBLIC_URL", "PUBLIC_URL"]


@given(st.binary(min_size=24, max_size=48))
def test_random_secrets_are_strong(data: bytes) -> None:
    """What `openssl rand` gives, in hexadecimal or base64, is refused only for what can be seen in it."""
    for text in (data.hex(), base64.b64encode(data).decode()):
        varied = len(set(text)) >= 8 and text not in (text + text)[1:-1]
        assert (weakness_of(text) is None) == varied


# --- nothing leaks ------------------------------------------------------------------------------------------------

_canaries = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=:@,. -_#?\n\u00e9", min_size=12, max_size=80
)


@given(values=st.dictionaries(st.sampled_from(sorted(CONTRACT)), _canaries, min_size=1), strict=st.booleans())
def test_no_fault_quotes_any_value(values: dict[str, str], strict: bool) -> None:
    """Whatever was pasted wherever, nothing of it is in the error or behind it: it may have been a secret."""
    planted = {name: f"{text[:6]}cAnArY{text[6:]}" for name, text in values.items()}
    try:
        load({**(PRODUCTION if strict else MINIMAL), **planted})
    except ConfigError as error:
        assert "cAnArY" not in str(error) + repr(error) + repr(error.faults)  # noqa: PT017  # it may also be read
        assert error.__cause__ is None  # noqa: PT017
        assert error.__context__ is None  # noqa: PT017


def test_settings_never_show_a_secret() -> None:
    """repr and str of the settings say of each secret only whether it is set."""
    planted = {
        "DATABASE_URL": DSN,
        "ENCRYPTION_SECRET": SECRET,
        "ENCRYPTION_SECRET_PREVIOUS": PREVIOUS,
        "SERVICE_TOKENS": f"backend:{TOKEN}",
        "EVENTS_SECRET": WEBHOOK,
        "STRIPE_WEBHOOK_SECRET": "canary-stripe",
        "WHATSAPP_APP_SECRET": "canary-app",
        "WHATSAPP_VERIFY_TOKEN": "canary-verify",
        "WHATSAPP_ACCESS_TOKEN": "canary-access",
    }
    assert sorted(planted) == sorted(SECRETS)
    settings = load({**planted, "WHATSAPP_PHONE_NUMBER_ID": "1065"})
    shown = repr(settings) + str(settings) + f"{settings}"
    assert not [text for text in [*planted.values(), TOKEN, "pW5Jr8WzQ2", "canary"] if text in shown]
    assert shown.count("<hidden>") == 3 * len(planted)
    assert "whatsapp_phone_number_id='1065'" in shown
    assert "events_secrets=()" in repr(load(MINIMAL))
    assert TOKEN not in repr(settings.service_tokens)
