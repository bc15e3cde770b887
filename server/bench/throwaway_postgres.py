"""A real Postgres from the system's packages, on loopback, as an unprivileged user, in a directory of its own.

For tests and benchmarks: what is in it is lost with the machine's power, and it ends with the process that started it.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg

from server.bench.reserved_port import reserved_port
from server.bench.waiting import LIMIT_S, until
from server.parent_death import tied

_DEBIAN = Path("/usr/lib/postgresql")
_UNPRIVILEGED = "nobody"  # initdb and postgres refuse to run as root
# No fsync: a killed server loses nothing by that, only a machine without power does.
_SETTINGS = {
    "fsync": "off",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "logging_collector": "off",
}


def find_binaries() -> Path | None:
    """Where initdb and postgres are."""
    on_path = shutil.which("pg_ctl")
    candidates = [Path(on_path).parent] if on_path else []
    candidates += sorted(_DEBIAN.glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


class Postgres:
    """One server; every test takes a database of its own."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._root = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else ""
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            os.chown(self._root, pwd.getpwnam(self._user).pw_uid, -1)
        self._reserved = reserved_port()  # also while it is stopped: clients go on trying
        self._port = self._reserved.getsockname()[1]
        initdb = self._start("initdb", "--auth=trust", "--username=test", "--no-sync", "--encoding=UTF8", "--locale=C")
        if initdb.wait(LIMIT_S):
            raise RuntimeError(f"initdb ended with {initdb.returncode}: {self._log.read_text()}")
        with (self._root / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in (_SETTINGS | {"port": str(self._port)}).items())

    def start(self) -> None:
        """Start and wait until it answers."""
        self._process = self._start("postgres")
        until(self._answers)

    def stop(self) -> None:
        """As if it crashed: no checkpoint, every connection cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(LIMIT_S)
            self._process = None

    def make_read_only(self, read_only: bool) -> None:
        """As the old primary is after a failover: it answers, and refuses to write."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(
                f"ALTER SYSTEM SET default_transaction_read_only = {'on' if read_only else 'off'}".encode()
            )
            connection.execute("SELECT pg_reload_conf()")

    def new_database(self) -> str:
        """The URL of an empty database, for SQLAlchemy."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name).replace("postgresql:", "postgresql+psycopg:")

    def remove(self) -> None:
        """Stop and leave nothing behind."""
        self.stop()
        self._reserved.close()
        shutil.rmtree(self._root)

    @property
    def _log(self) -> Path:
        return self._root / "log"

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"postgres ended: {self._log.read_text()}")
        try:
            psycopg.connect(self._url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def _url(self, database: str) -> str:
        return f"postgresql://test@127.0.0.1:{self._port}/{database}"

    def _start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(self._binaries / program), "-D", str(self._root / "data"), *arguments]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                tied(command, number=signal.SIGQUIT, user=self._user),
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
