"""A real Postgres from the system's packages, on loopback, as an unprivileged user, in a directory of its own.

For tests and benchmarks: what is in it is lost with the machine's power.
"""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg

_DEBIAN = Path("/usr/lib/postgresql")
_UNPRIVILEGED = "nobody"  # initdb and postgres refuse to run as root


def find_binaries() -> Path | None:
    """Where initdb and pg_ctl are."""
    on_path = shutil.which("pg_ctl")
    candidates = [Path(on_path).parent] if on_path else []
    candidates += sorted(_DEBIAN.glob("*/bin"), reverse=True)
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


class Postgres:
    """One server; every test takes a database of its own."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._root = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._user = _UNPRIVILEGED if os.geteuid() == 0 else None
        if self._user:
            os.chown(self._root, pwd.getpwnam(self._user).pw_uid, -1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._run("initdb", "--auth=trust", "--username=test", "--no-sync", "--encoding=UTF8", "--locale=C")
        # No fsync: a killed server loses nothing by that, only a machine without power does.
        settings = ["fsync=off", "unix_socket_directories=", "listen_addresses=127.0.0.1", "max_connections=200"]
        with (self._root / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, _, value in (line.partition("=") for line in settings))
            file.write(f"port = {self._port}\n")

    def start(self) -> None:
        """Start and wait until it answers."""
        self._run("pg_ctl", "-w", "-l", str(self._root / "log"), "start")

    def stop(self) -> None:
        """As if it crashed: no checkpoint, every connection cut."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def new_database(self) -> str:
        """The URL of an empty database, for SQLAlchemy."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name).replace("postgresql:", "postgresql+psycopg:")

    def remove(self) -> None:
        """Stop and leave nothing behind."""
        self.stop()
        shutil.rmtree(self._root)

    def _url(self, database: str) -> str:
        return f"postgresql://test@127.0.0.1:{self._port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._root / "data"), *arguments]
        done = subprocess.run(
            command,
            user=self._user,
            cwd=self._root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # no pipe: the server would hold its end
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"{program} {arguments} ended with {done.returncode}")
