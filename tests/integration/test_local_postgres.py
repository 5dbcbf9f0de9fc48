"""The embedded PostgreSQL: real servers in real folders, really killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from etl.embedded import binaries
from etl.embedded.account import Account, account_for
from etl.embedded.postgres import EmbeddedPostgres, default_home
from etl.errors import ConfigurationError, DatabaseError
from tests.postgres_fixture import new_home
from tests.support import slow, wait_until

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="needs root")
needs_shared_programs = pytest.mark.skipif(
    not AS_ROOT or not Account(NOBODY, NOBODY).can_enter(binaries.psql_path()),
    reason="needs root, and a virtual environment that other users can read",
)

NO_FSYNC = {"fsync": "off"}
"""A setting for speed: without fsync, a power failure loses data, but a killed process does not."""

USER = """
import sys
from pathlib import Path
from etl.errors import EtlError
from etl.embedded.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"})
try:
    server.start()
except EtlError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print("started", flush=True)
sys.stdin.readline()
server.stop()
"""
"""A process that uses the server of a home until a line arrives on its standard input."""


@pytest.fixture
def home() -> Iterator[Path]:
    """Provide an empty folder that the server's user can enter, and stop what still runs there."""
    folder = new_home()
    yield folder
    for file in folder.rglob("postmaster.pid"):
        process = int(file.read_text().split()[0])
        if os.fsencode(file.parent) in cmdline(process):
            os.kill(process, signal.SIGQUIT)
            wait_until_dead(process)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def seed() -> Iterator[Path]:
    """Provide a home with data whose server was stopped cleanly, as a source of copies."""
    folder = new_home()
    with EmbeddedPostgres(folder, settings=NO_FSYNC):
        pass
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def used_home(home: Path, seed: Path) -> Path:
    """Provide a home whose server has run before."""
    subprocess.run(["cp", "-a", f"{seed}/.", str(home)], check=True)
    return home


def cmdline(process: int) -> bytes:
    """Return the command line of a process; empty if the process is dead or a zombie."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def postmaster(server: EmbeddedPostgres) -> int:
    """Return the process id of the running server."""
    return int((server.data / "postmaster.pid").read_text().split()[0])


def query(url: str, statement: str) -> object:
    """Return the first value of a statement's result."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def wait_until_dead(process: int) -> None:
    """Wait until no process with this id is alive."""
    wait_until(lambda: not cmdline(process), seconds=240)


def user_process(home: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a process that uses the server of `home`."""
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def start_as(account: Account, *command: str) -> subprocess.Popen[bytes]:
    """Start a program as a system user."""
    return subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=account.uid if AS_ROOT else None,
        group=account.gid if AS_ROOT else None,
        extra_groups=[] if AS_ROOT else None,
    )


def wait_until_started(process: subprocess.Popen[str]) -> None:
    """Wait until the process uses the server."""
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "started\n", process.stderr.read()


def finish(process: subprocess.Popen[str]) -> str:
    """End the process, and return what it wrote to standard error."""
    _, errors = process.communicate("\n", timeout=240)
    return errors


def as_nobody(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script as the user nobody.

    The imports come before the change of user, because the interpreter's files may be readable
    only by root.
    """
    prelude = f"""
        import os, sys, psycopg, tempfile, subprocess, shutil, pwd, encodings.idna
        from pathlib import Path
        from etl.errors import EtlError
        from etl.embedded.postgres import EmbeddedPostgres, default_home
        try:
            psycopg.connect("host=/nonexistent")
        except psycopg.OperationalError:
            pass
        os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "HOME": arguments[0]},
        timeout=240,
    )


def test_data_survives_a_restart(home: Path) -> None:
    """A new home has the promised settings, a stop leaves no process, a restart has the data."""
    server = EmbeddedPostgres(home)
    url = server.start()
    query(url, "CREATE TABLE public.kept AS SELECT 'kept' AS word")
    with psycopg.connect(url) as connection:
        settings: dict[str, str] = dict(
            connection.execute("SELECT name, setting FROM pg_settings").fetchall()
        )
    expected = {
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "search_path": "orchestra, public",
        "data_checksums": "on",
        "listen_addresses": "",
    }
    assert {name: settings[name] for name in expected} == expected
    process = postmaster(server)
    server.stop()
    assert not cmdline(process)
    assert not (server.data / "postmaster.pid").exists()

    assert server.start() == url
    printed = subprocess.run(
        [str(binaries.psql_path()), url, "-XAtc", "SELECT word FROM kept"],
        capture_output=True,
        text=True,
        check=True,
    )
    server.stop()
    assert printed.stdout == "kept\n"


@needs_shared_programs
def test_an_ordinary_user_runs_the_server_as_itself(home: Path) -> None:
    """Without root, the default home, its data and the server belong to the user alone."""
    os.chown(home, NOBODY, NOBODY)
    script = """
        os.environ.pop("ORCHESTRA_ETL_HOME", None)
        with EmbeddedPostgres(default_home(), settings={"fsync": "off"}) as server:
            with psycopg.connect(server.url) as connection:
                print(connection.execute("SELECT current_user").fetchone()[0])
    """
    done = as_nobody(script, str(home))
    assert (done.stdout, done.stderr) == ("postgres\n", "")
    made = home / ".local" / "share" / "orchestra-etl"
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_uid for path in made.rglob("*")} == {NOBODY}


@needs_shared_programs
def test_a_users_home_stays_usable_to_that_user_after_root_used_it(home: Path) -> None:
    """Root's server runs as the owner of the home and leaves no file that the owner cannot open."""
    os.chown(home, NOBODY, NOBODY)
    with EmbeddedPostgres(home, settings=NO_FSYNC) as server:
        assert server.data.stat().st_uid == NOBODY
    done = as_nobody(
        "with EmbeddedPostgres(Path(sys.argv[1]), settings={'fsync': 'off'}): print('started')",
        str(home),
    )
    assert (done.stdout, done.stderr) == ("started\n", "")


def test_the_home_is_named_by_the_environment_else_by_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ORCHESTRA_ETL_HOME overrides the default home, unless it is empty."""
    monkeypatch.setenv("ORCHESTRA_ETL_HOME", "/somewhere/else")
    assert default_home() == Path("/somewhere/else")
    monkeypatch.setenv("ORCHESTRA_ETL_HOME", "")
    assert default_home().name == "orchestra-etl"
    if AS_ROOT:
        assert default_home() == Path("/var/lib/orchestra-etl")


@pytest.mark.parametrize(
    "name",
    [*slow("with space"), "odd, \"quotes' $HOME", "long-" + "x" * 200],
    ids=["space", "odd", "long"],
)
def test_awkward_paths_work(used_home: Path, name: str) -> None:
    """A home's path can have spaces, quotes, dollars and commas, and be too long for a socket."""
    (used_home / name).mkdir()
    (used_home / "postgres-18").rename(used_home / name / "postgres-18")
    if AS_ROOT:
        (used_home / name).chmod(0o711)
    with EmbeddedPostgres(used_home / name, settings=NO_FSYNC) as server:
        assert query(server.url, "SELECT 1") == 1
        assert server.socket_directory.stat().st_mode & 0o777 == 0o700
    assert not server.socket_directory.exists()


def test_two_processes_start_one_server_and_the_last_stops_it(home: Path) -> None:
    """Two processes on an empty home share one server, which stops when the second one leaves."""
    one, other = user_process(home), user_process(home)
    wait_until_started(one)
    wait_until_started(other)
    server = EmbeddedPostgres(home)
    process = postmaster(server)
    assert finish(one) == ""
    assert query(server.url, "SELECT 1") == 1
    assert postmaster(server) == process
    assert finish(other) == ""
    assert not cmdline(process)


def test_the_server_of_a_killed_process_is_adopted_and_stopped(used_home: Path) -> None:
    """A server whose only user is killed keeps running; the next user adopts and stops it."""
    killed = user_process(used_home)
    wait_until_started(killed)
    server = EmbeddedPostgres(used_home)
    process = postmaster(server)
    killed.kill()
    killed.communicate()
    with server:
        assert postmaster(server) == process
        assert query(server.url, "SELECT 1") == 1
    assert not cmdline(process)


@pytest.mark.slow
def test_a_start_killed_at_any_moment_does_no_harm(home: Path) -> None:
    """A start succeeds after earlier starts were killed before, during and after initdb."""
    unfinished = "postgres-18.new-*"
    for moment in (
        unfinished,
        f"{unfinished}/base/1/*",
        "postgres-18",
        "postgres-18/postmaster.pid",
    ):
        before = set(home.glob(moment))
        if home / moment in before:
            # The start before was killed when it had already come so far, or the server that it
            # left behind has.
            continue
        killed = user_process(home)
        deadline = time.monotonic() + 240
        while not set(home.glob(moment)) - before:
            assert time.monotonic() < deadline, moment
            time.sleep(0.001)
        killed.kill()
        killed.communicate()
    with EmbeddedPostgres(home, settings=NO_FSYNC) as server:
        assert query(server.url, "SHOW search_path") == "orchestra, public"
        process = postmaster(server)
    assert not cmdline(process)
    assert not list(home.glob("*.new-*"))


def test_a_killed_server_recovers_and_serves_its_old_url(used_home: Path) -> None:
    """After a crash the next user restarts the server with all commits, at the same URL."""
    with EmbeddedPostgres(used_home, settings=NO_FSYNC) as first:
        query(first.url, "CREATE TABLE public.committed AS SELECT 42 AS answer")
        os.kill(postmaster(first), signal.SIGKILL)
        wait_until_dead(postmaster(first))
        with EmbeddedPostgres(used_home, settings=NO_FSYNC) as second:
            assert second.url == first.url
            assert query(first.url, "SELECT answer FROM committed") == 42
            process = postmaster(second)
        assert query(first.url, "SELECT answer FROM committed") == 42
    assert not cmdline(process)


def test_a_recycled_process_id_is_neither_trusted_nor_killed(used_home: Path) -> None:
    """Lock files that name another living process neither block a start nor harm that process."""
    with EmbeddedPostgres(used_home, settings=NO_FSYNC) as server:
        lock_files = [
            server.data / "postmaster.pid",
            server.socket_directory / ".s.PGSQL.5432.lock",
        ]
        process = postmaster(server)
        os.kill(process, signal.SIGKILL)
        wait_until_dead(process)
    bystander = start_as(account_for(server.data, used_home), "/bin/sleep", "60")
    try:
        for file in lock_files:
            file.write_text(file.read_text().replace(f"{process}\n", f"{bystander.pid}\n", 1))
        with server:
            assert query(server.url, "SELECT 1") == 1
            assert postmaster(server) != bystander.pid
        assert bystander.poll() is None
        for file in lock_files:
            assert not file.exists()
    finally:
        bystander.kill()
        bystander.wait()


def test_a_server_started_by_hand_is_left_alone(used_home: Path) -> None:
    """A start is refused while a foreign server uses the data, and that server is not harmed."""
    server = EmbeddedPostgres(used_home)
    account = account_for(server.data, used_home)
    sockets = used_home / "by-hand"
    sockets.mkdir(0o700)
    account.own(sockets)
    program = str(binaries.programs_for(account, used_home) / "postgres")
    by_hand = start_as(
        account, program, "-D", str(server.data), "-c", "listen_addresses=", "-k", str(sockets)
    )
    try:
        wait_until((sockets / ".s.PGSQL.5432").exists, seconds=240)
        with pytest.raises(DatabaseError, match="lock file"):
            server.start()
        assert postmaster(server) == by_hand.pid
        assert by_hand.poll() is None
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait()


@pytest.mark.parametrize("beside", [False, True], ids=["in the data folder", "beside it"])
def test_data_of_another_major_version_is_refused(home: Path, beside: bool) -> None:
    """Data of PostgreSQL 17 is neither started nor ignored; the error names both remedies."""
    folder = home / ("postgres-17" if beside else "postgres-18")
    folder.mkdir()
    (folder / "PG_VERSION").write_text("17\n")
    if AS_ROOT:
        os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(
        DatabaseError, match=r"holds data of PostgreSQL 17.*dump it.*move the folder away"
    ) as raised:
        EmbeddedPostgres(home).start()
    assert "\n" not in str(raised.value)
    assert (folder / "PG_VERSION").read_text() == "17\n"


def test_a_refused_setting_is_one_clear_line(used_home: Path) -> None:
    """The error quotes PostgreSQL's own reason for a failed start in one line."""
    with pytest.raises(DatabaseError, match="shared_buffers") as raised:
        EmbeddedPostgres(used_home, settings={"shared_buffers": "nonsense"}).start()
    assert "\n" not in str(raised.value)


def test_the_log_holds_no_row_and_no_statement(used_home: Path) -> None:
    """The server's log quotes no value or statement, and only the server's user can read it."""
    with EmbeddedPostgres(used_home, settings=NO_FSYNC) as server:
        query(server.url, "CREATE TABLE public.t (id int PRIMARY KEY, word text)")
        query(server.url, "INSERT INTO t VALUES (1, 'hush')")
        for statement in (
            "INSERT INTO t VALUES (1, 'hush')",
            "SELECT 'hush'::int",
            "SELECT hush FROM t",
        ):
            with pytest.raises(psycopg.Error):
                query(server.url, statement)
    assert "hush" not in server.log.read_text()
    assert "LOG:" in server.log.read_text()
    assert server.log.stat().st_mode & 0o777 == 0o600


def test_the_server_gets_nothing_of_the_programs_environment(used_home: Path) -> None:
    """The API key is not in the server's environment, which SQL functions could read."""
    using = user_process(used_home, ORCHESTRA_API_KEY="hush")
    wait_until_started(using)
    environment = Path(f"/proc/{postmaster(EmbeddedPostgres(used_home))}/environ").read_bytes()
    assert finish(using) == ""
    assert b"hush" not in environment


@pytest.mark.parametrize("prepared", ["open to all", "a link", "another user's"])
def test_a_socket_folder_that_others_can_enter_is_refused(used_home: Path, prepared: str) -> None:
    """A socket folder that another user may have prepared is refused."""
    server = EmbeddedPostgres(used_home)
    if prepared == "a link":
        server.socket_directory.symlink_to(used_home)
    else:
        server.socket_directory.mkdir(0o700)
        if prepared == "open to all":
            server.socket_directory.chmod(0o777)
            if AS_ROOT:
                account_for(server.data, used_home).own(server.socket_directory)
        elif AS_ROOT:
            os.chown(server.socket_directory, 12_345, 12_345)
        else:
            pytest.skip("needs root")
    with pytest.raises(ConfigurationError, match="only user"):
        server.start()


def test_a_server_of_other_data_on_the_same_socket_is_not_adopted(
    used_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server at the socket that serves another data folder is neither used nor stopped."""
    with EmbeddedPostgres(used_home, settings=NO_FSYNC) as other:
        monkeypatch.setattr("etl.embedded.postgres.START_SECONDS", 0.5)
        shutil.copytree(
            used_home, used_home / "copy", ignore=shutil.ignore_patterns("postgres-18", "socket")
        )
        mine = EmbeddedPostgres(used_home / "copy")
        mine.data.mkdir()
        (mine.data / "PG_VERSION").write_text("18\n")
        (mine.data / "postmaster.pid").write_text("1\n/elsewhere\n1\n")
        mine.socket_directory = other.socket_directory
        if AS_ROOT:
            shutil.chown(mine.data, other.data.stat().st_uid, other.data.stat().st_gid)
            (used_home / "copy").chmod(0o711)
        with pytest.raises(DatabaseError):
            mine.start()
        assert query(other.url, "SELECT 1") == 1


def test_a_folder_that_cannot_be_written_is_one_clear_line() -> None:
    """An unwritable home is refused in one line that names it and ORCHESTRA_ETL_HOME."""
    with pytest.raises(
        ConfigurationError, match=r"/proc/orchestra-etl.*ORCHESTRA_ETL_HOME"
    ) as raised:
        EmbeddedPostgres(Path("/proc/orchestra-etl")).start()
    assert "\n" not in str(raised.value)


@needs_shared_programs
def test_a_read_only_folder_is_one_clear_line(home: Path) -> None:
    """A home that belongs to another user is refused in one line."""
    script = """
        try:
            EmbeddedPostgres(Path(sys.argv[1])).start()
        except EtlError as error:
            print(type(error).__name__, error)
    """
    home.chmod(0o755)
    done = as_nobody(script, str(home))
    assert done.stdout.startswith("ConfigurationError the embedded PostgreSQL cannot use"), (
        done.stderr
    )
    assert "Permission denied" in done.stdout
    assert done.stdout.count("\n") == 1


def _on_a_small_disk(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a server in a home with room for 6 MB, and list what is left there afterwards."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("needs mount namespaces")
    mount = (
        'mount -t tmpfs -o size=6m,mode=711 none "$0" && "$@"; status=$?; ls -A "$0"; exit $status'
    )
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, str(home), sys.executable, "-c", USER, str(home)],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **variables},
    )  # fmt: skip


@needs_shared_programs
def test_a_full_disk_is_one_clear_line(home: Path) -> None:
    """On a full disk no half-made data stays, and one line names the cause."""
    done = _on_a_small_disk(home, PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.startswith("DatabaseError: PostgreSQL could not create its data")
    assert done.stderr.count("\n") == 1
    assert "postgres-18.new" not in done.stdout


@needs_root
def test_as_root_a_home_closed_to_the_servers_user_is_refused(home: Path) -> None:
    """A home that only root can enter keeps its mode, and the error names a folder that works."""
    home.chmod(0o700)
    with pytest.raises(ConfigurationError, match=r"may not enter .*/var/lib/orchestra-etl"):
        EmbeddedPostgres(home / "inside").start()
    assert home.stat().st_mode & 0o777 == 0o700


def _closed_programs(folder: Path) -> Path:
    """Copy PostgreSQL's programs to a folder that only root can read, like root's virtual env."""
    closed = folder / "site-packages"
    closed.mkdir(0o700)
    package = binaries.psql_path().parents[2]
    for part in (package, package.with_name(package.name + ".libs")):
        shutil.copytree(part, closed / part.name)
    return closed


@needs_root
def test_a_disk_too_small_for_the_programs_is_one_clear_line(home: Path, tmp_path: Path) -> None:
    """If there is no room for a needed copy of the programs, the error is one short line."""
    closed = _closed_programs(tmp_path)
    done = _on_a_small_disk(home, PYTHONPATH=f"{closed}:{ROOT}")
    assert done.returncode == 1
    assert done.stderr.startswith("ConfigurationError: the embedded PostgreSQL cannot use")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 500


@needs_root
def test_as_root_programs_in_a_closed_folder_are_copied_once(used_home: Path) -> None:
    """Programs that the server's user cannot read are copied to the home, and only once."""
    closed = _closed_programs(used_home)
    copies = []
    for _ in range(2):
        using = user_process(used_home, PYTHONPATH=f"{closed}:{ROOT}")
        wait_until_started(using)
        assert str(closed).encode() not in cmdline(postmaster(EmbeddedPostgres(used_home)))
        assert finish(using) == ""
        copies.append(
            [(path.name, path.stat().st_ino) for path in used_home.glob("embedded-postgres-*")]
        )
    assert len(copies[0]) == 1
    assert copies[0] == copies[1]


def test_fixtures_provide_each_test_with_its_own_databases(
    database_url: str, empty_database_url: str, sample_steps: bytes
) -> None:
    """A test's two databases are separate and writable, and the sample is the real response."""
    names = [query(url, "SELECT current_database()") for url in (database_url, empty_database_url)]
    assert len(set(names)) == 2
    query(empty_database_url, "CREATE TABLE public.t ()")
    assert b"virtuoso-medium" in sample_steps
