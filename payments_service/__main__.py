"""The command line: `payments-service` and `python -m payments_service`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec

from payments_service import __version__, config, demo, doctor, embedded, keys, log, migrations
from payments_service.app import parts
from payments_service.config import ConfigError, Settings
from payments_service.errors import PaymentsError
from payments_service.internal.docs import description
from payments_service.parsers import Bind
from payments_service.sandbox import run as sandbox
from payments_service.serve import ALL, serve, stop_on_signals

DATA = Path(".data")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when it did its work, 1 with the reason on stderr when it could not."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed) or 0)
    except (ConfigError, PaymentsError) as error:
        sys.stderr.write(f"payments-service: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="payments-service", description="Conva's payments microservice")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("serve", help="run the listeners and the worker")
    command.add_argument("--only", choices=ALL, help="run one part instead of all three")
    command.set_defaults(run=_serve)

    commands.add_parser("migrate", help="bring the database up to date").set_defaults(run=_migrate)
    commands.add_parser("rotate-keys", help="seal every credential with the current key").set_defaults(run=_rotate)
    command = commands.add_parser("doctor", help="look whether the books are whole; changes nothing")
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(run=_doctor)
    commands.add_parser("openapi", help="print the description of the API").set_defaults(run=_openapi)

    command = commands.add_parser("sandbox", help="run the gateways' simulators")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8082)
    command.set_defaults(run=_sandbox)

    command = commands.add_parser("demo", help="everything on this machine, with a pay link to try")
    command.add_argument("--auto", action="store_true", help="pay by itself, wait for the event, then end")
    command.set_defaults(run=_demo)
    return parser


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[str]:
    """The database's URL: DATABASE_URL, else the embedded one in `./.data`, kept up to date by itself."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    with embedded.start(DATA / "postgres") as server:
        migrations.migrate(server.url)
        yield server.url


def _settings() -> Settings:
    settings = config.from_environment()
    log.configure(settings.log_level, settings.log_format)
    return settings


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run on the fastest loop that the system has."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(work)


def _loop_factory() -> Any:
    if sys.platform == "win32":
        # psycopg needs add_reader, which Windows' default loop lacks.
        return asyncio.SelectorEventLoop
    import uvloop

    return uvloop.new_event_loop


def _serve(arguments: argparse.Namespace) -> None:
    settings = _settings()
    with _database(settings) as url:
        _run(serve(settings, url, arguments.only))


def _migrate(_arguments: argparse.Namespace) -> None:
    settings = _settings()
    with _database(settings) as url:
        before, after = migrations.migrate(url)
    sys.stdout.write(
        f"The database is at revision {after}" + (f" (was {before or 'empty'}).\n" if before != after else ".\n")
    )


def _rotate(_arguments: argparse.Namespace) -> int:
    settings = _settings()
    with _database(settings) as url:
        return int(_run(_rotate_keys(settings, url)))


async def _rotate_keys(settings: Settings, url: str) -> int:
    progress = keys.Progress()
    async with parts(settings, url) as built:
        async for progress in keys.rotate(built.context):
            sys.stdout.write(f"{progress.tenants} tenants, {progress.rewrapped} credentials sealed anew\n")
    if progress.unreadable:
        sys.stdout.write(f"{progress.unreadable} credentials cannot be opened by any known key: see the log.\n")
        return 1
    sys.stdout.write("Everything is under the current key. ENCRYPTION_SECRET_PREVIOUS is no longer needed.\n")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    """0 when all is whole, 1 when there is damage, 2 when that could not be found out."""
    try:
        settings = _settings()
        with _database(settings) as url:
            result: doctor.Examination = _run(_examine(settings, url))
    except (ConfigError, PaymentsError) as error:
        sys.stderr.write(f"payments-service: {error}\n")
        return 2
    if arguments.json:
        found = {"whole": result.whole, "checks": list(result.found.values())}
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in doctor.lines(result))
    return 0 if result.whole else 1


async def _examine(settings: Settings, url: str) -> doctor.Examination:
    async with parts(settings, url) as built:
        return await doctor.examine(built.context, telling=built.courier is not None)


def _openapi(_arguments: argparse.Namespace) -> None:
    sys.stdout.write(description())


def _sandbox(arguments: argparse.Namespace) -> None:
    log.configure("info", "console")
    _run(_serve_sandbox(Bind(arguments.host, arguments.port)))


async def _serve_sandbox(bind: Bind) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    sys.stdout.write(f"Simulators of the gateways: http://{bind}. Ctrl-C ends them. The service finds them by:\n")
    sys.stdout.writelines(f"  {name}={value}\n" for name, value in sandbox.settings(f"http://{bind}").items())
    await sandbox.serve(bind, stop)


def _demo(arguments: argparse.Namespace) -> int:
    return demo.main(DATA, auto=arguments.auto, run=_run)


if __name__ == "__main__":
    sys.exit(main())
