"""Settings, folders, weights, database and addresses of one deployment. Nothing is created or changed."""

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.options import BUNDLED_CLASSIFIER
from server.doctor.finding import Finding
from server.errors import ServerError
from server.settings import Settings, is_reached_from_elsewhere
from weights.disk import existing_parent

_TIMEOUT_S: Final = 3.0


def check_data_dir(settings: Settings) -> Finding:
    """Whether files can be written there, and enough of them."""
    folder, needed = settings.data_dir, settings.jobs.min_free_bytes
    there = existing_parent(folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        text = f"{there} is not writable" if there.is_dir() else f"{there} is no folder"
        return Finding("data_dir", "problem", text, f"chown or chmod it for this user, or set data_dir (now {folder})")
    free = shutil.disk_usage(there).free
    text = f"{folder}, {free / 1e9:.1f} GB free"
    if free < needed:
        remedy = f"make room, or lower jobs.min_free_bytes ({needed / 1e9:.1f} GB): new requests are refused below it"
        return Finding("data_dir", "problem", text, remedy)
    return Finding("data_dir", "ok", text)


def check_weights(settings: Settings) -> Finding:
    """Whether the folder can be loaded, by names, sizes and headers."""
    model = settings.generator.model
    if model == "demo":
        return Finding("weights", "ok", "the demo model, built at the first start (untrained)")
    from weights.checks.loading_check import check_loadable
    from weights.errors import WeightsError

    try:
        check_loadable(Path(model))
    except WeightsError as error:
        text, _, command = str(error).partition("; run: ")
        return Finding("weights", "problem", text, command or "hunyuan-custom weights prepare")
    return Finding("weights", "ok", f"{model} is complete by names and sizes; weights verify reads all of it")


def check_companions(settings: Settings) -> Iterator[Finding]:
    """The models beside HunyuanCustom: without its safety classifier a server makes no video."""
    model, segmenter = settings.safety.model, settings.image.segmenter
    if settings.safety.off:
        yield Finding("safety", "ok", 'safety.model is "none": nothing is checked')
    elif model == BUNDLED_CLASSIFIER:
        yield Finding("safety", "ok", "the classifier of this package")
    elif lack := _lack(model):
        yield Finding("safety", "problem", lack[0], f'{lack[1]}, or set safety.model = "{BUNDLED_CLASSIFIER}"')
    else:
        yield Finding("safety", "ok", f"{model} is complete by names and sizes")
    if settings.image.background == "white":
        lack = _lack(segmenter)
        yield (
            Finding("segmenter", "warning", f"{lack[0]}; backgrounds are kept", lack[1])
            if lack
            else Finding("segmenter", "ok", f"{segmenter} is complete by names and sizes")
        )


def _lack(companion: str) -> tuple[str, str] | None:
    """What is wrong with such a folder, and the command that repairs it."""
    from weights.checks.companion_check import check_companion
    from weights.errors import WeightsError

    try:
        check_companion(Path(companion))
    except WeightsError as error:
        text, _, command = str(error).partition("run: ")
        return text.rstrip("; "), command or "hunyuan-custom weights prepare"
    return None


def check_port(settings: Settings) -> Finding:
    """Whether the API can listen where it is told to, or does already."""
    host, port = settings.api.host, settings.api.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE and is_running(settings):
            return Finding("port", "ok", f"{host}:{port}: this server is running")
        reason = error.strerror or str(error)
        return Finding("port", "problem", f"{host}:{port}: {reason}", "end what uses it, or set api.host and api.port")
    return Finding("port", "ok", f"{host}:{port} is free" if port else "a free one is taken at the start")


def is_running(settings: Settings) -> bool:
    """Whether a worker of this deployment runs on this machine: it holds its lock."""
    try:
        with (settings.data_dir / f"worker-{settings.worker_id}.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def check_database(settings: Settings) -> Finding:
    """Whether it is reached and has this version's tables."""
    from server.db.connection import create_engine, sqlite_file
    from server.db.migrations import NewerDatabase, check

    url = settings.database_url
    file = sqlite_file(url)
    where = str(file or url.rpartition("@")[2])
    if file is not None and not file.exists():
        return Finding("database", "ok", f"{where} is made at the first start")
    database = create_engine(url)
    try:
        check(database)
    except NewerDatabase as error:
        reason = str(error).removeprefix("database_url: ")
        return Finding("database", "problem", reason, "install that version of this server, or restore a backup")
    except ServerError as error:
        return Finding("database", "warning", str(error).removeprefix("database_url: "), "serve upgrades it by itself")
    except Exception as error:  # whatever the driver raises
        reason = " ".join(str(getattr(error, "orig", error)).split())[:200]
        return Finding("database", "problem", f"{where}: {reason}", "start it, or set database_url")
    finally:
        database.dispose()
    return Finding("database", "ok", where)


def check_storage(settings: Settings) -> Iterator[Finding]:
    """Whether the bucket is reached, if there is one."""
    if not settings.storage_url:
        return
    from server.storage.open import open_storage

    quick = settings.object_storage.model_copy(update={"timeout_s": _TIMEOUT_S})
    try:
        open_storage(settings.model_copy(update={"object_storage": quick})).check()
    except Exception as error:  # a wrong key, no network, a missing package
        reason = " ".join(str(error).split())[:200]
        yield Finding("storage", "problem", reason, "set storage_url and object_storage, or start the store")
    else:
        yield Finding("storage", "ok", settings.storage_url)


def check_access(settings: Settings) -> Finding:
    """Whether those who reach the server need a key, and whether it travels encrypted."""
    api = settings.api
    if not is_reached_from_elsewhere(api):
        return Finding("access", "ok", f"only this machine reaches {api.host}; no key is asked for")
    public = api.public_base_url or ""
    if api.tls_cert is None and not public.startswith("https://") and not api.trusted_proxies:
        remedy = "serve --tls-self-signed, set api.tls_cert, or put a proxy with TLS in front"
        return Finding("access", "warning", f"{api.host} is reached from elsewhere; keys travel unencrypted", remedy)
    return Finding("access", "ok", "callers need a key; the first one is shown by the first start")
