"""Download: list, choose, check disk and licence, fetch what is missing, compare hashes, record them."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from weights.disk import disk_errors, require_space, same_disk
from weights.errors import DownloadError, VerifyError
from weights.hub.lock_file import LockedFile, LockFile, check_hash, check_size
from weights.hub.manifest import Manifest, ManifestComponent, Repository
from weights.hub.repository import Listing, fetch, list_repository, partial_path
from weights.originals.layout import LLAVA_FOLDER, Variant
from weights.reporter import SILENT, Progress, Reporter

Ask = Callable[[str], bool]
"""Shows the licence notice and returns whether it was accepted."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One file to have: local path relative to the originals' folder, and what it must be."""

    local: str
    locked: LockedFile


def download(
    manifest: Manifest,
    variant: Variant,
    folder: Path,
    *,
    ask: Ask,
    reporter: Reporter = SILENT,
    target: Path | None = None,
) -> int:
    """Bring the originals of `variant` into `folder` and return how many files were fetched.

    There must be disk for what is missing and for the conversion of all, which will be at `target` (by default on the
    same disk). Present files that match the lock file cost no request. Raises `DownloadError`, `TargetError`,
    `VerifyError`.
    """
    lock = LockFile.read(folder)
    if _is_complete(manifest, variant, folder, lock):
        return 0
    if lock.licence != manifest.licence:
        if not ask(manifest.notice):
            raise DownloadError(f"{manifest.licence}: not accepted; nothing was downloaded")
        lock.licence = manifest.licence
        lock.write(folder)
    reporter.say(f"{variant}: about {sum(component.gigabytes for component in manifest.of(variant)):.0f} GB in all")
    wanted = choose_files(manifest.of(variant), lock)
    missing = [want for want in wanted if not is_there(want, folder, lock)]
    _require_space(wanted, missing, folder, target or folder)
    fetch_all(missing, folder, lock, reporter=reporter)
    lock.files |= {want.local: want.locked for want in wanted}
    lock.write(folder)
    return len(missing)


def fetch_all(missing: list[Wanted], folder: Path, lock: LockFile, *, reporter: Reporter) -> None:
    """Fetch one after the other; each is in the lock file as soon as it is there."""
    reporter.start("download", sum(bytes_to_fetch(want, folder) for want in missing))
    for want in missing:
        reporter.say(f"{want.local} ({want.locked.size / 1e9:.2f} GB)")
        _fetch_verified(want.locked, folder / want.local, reporter.progress)
        lock.files[want.local] = want.locked
        lock.write(folder)


def remove_damaged(variant: Variant, folder: Path, manifest: Manifest, say: Callable[[str], None]) -> bool:
    """Remove originals of `variant` whose content is not what the lock file says; the next download fetches them."""
    removed = False
    for name, locked in LockFile.read(folder).files.items():
        path = folder / name
        if not path.is_file() or not any(component.names(path) for component in manifest.of(variant)):
            continue
        try:
            check_size(path, locked)
            check_hash(path, locked)
        except VerifyError as error:
            say(f"{error}: removed, to be fetched again")
            with disk_errors(path):
                path.unlink()
            removed = True
    return removed


def choose_files(components: tuple[ManifestComponent, ...], lock: LockFile) -> list[Wanted]:
    """Match the manifest with what the repositories hold at the locked commit; fall back where one lacks a component.

    Raises `DownloadError` naming component and file, or a file that differs from the lock.
    """
    listings: dict[str, Listing] = {}
    top = "models"
    wanted: list[Wanted] = []
    for component in components:
        listing = _listing(component.repository, lock, listings)
        prefix = next((p for p in ("models/", "") if _has_folder(listing, p + component.folder)), None)
        if prefix is not None:
            top = prefix.rstrip("/")
        root = None if prefix is None else f"{prefix}{component.folder}/"
        chosen = _match(component, listing, root) if root is not None else None
        if isinstance(chosen, str) or chosen is None:
            if component.fallback is None:
                raise DownloadError(f"{listing.repository}: {chosen or component.folder}: not in the repository")
            listing, root = _listing(component.fallback, lock, listings), ""
            chosen = _match(component, listing, root)
            if isinstance(chosen, str):
                raise DownloadError(f"{listing.repository}: {chosen}: not in the repository")
        for path in chosen:
            name = Path(path).name
            wanted.append(Wanted(local=str(Path(top, component.folder, name)), locked=listing.files[path]))
    for want in wanted:
        known = lock.files.get(want.local)
        if known is not None and known.hash != want.locked.hash:
            raise DownloadError(f"{want.locked.repository}: {want.local}: the hub's hash is not the lock file's")
    return wanted


def _listing(repository: Repository, lock: LockFile, listings: dict[str, Listing]) -> Listing:
    if repository.name not in listings:
        commit = lock.commit_of(repository.name) or repository.revision
        listings[repository.name] = list_repository(Repository(name=repository.name, revision=commit))
    return listings[repository.name]


def _has_folder(listing: Listing, folder: str) -> bool:
    return any(path.startswith(f"{folder}/") for path in listing.files)


def _match(component: ManifestComponent, listing: Listing, root: str) -> list[str] | str:
    """Paths to fetch, or the name of the first that is not there."""
    here = [path for path in listing.files if path.startswith(root) and "/" not in path.removeprefix(root)]
    names = {path.removeprefix(root): path for path in here}
    chosen = []
    for name in component.files:
        if name not in names:
            return f"{root}{name}"
        chosen.append(names[name])
    for pattern in component.optional:
        chosen += [names[name] for name in sorted(fnmatch.filter(names, pattern))]
    if component.weights:
        found = next((hits for hits in (sorted(fnmatch.filter(names, p)) for p in component.weights) if hits), None)
        if found is None:
            return f"{root}{component.weights[0]}"
        chosen += [names[name] for name in found]
    return list(dict.fromkeys(chosen))


def _require_space(wanted: list[Wanted], missing: list[Wanted], folder: Path, target: Path) -> None:
    """Raise `TargetError` unless both disks hold what will be put on them."""
    to_fetch = sum(bytes_to_fetch(want, folder) for want in missing)
    if same_disk(folder, target):
        require_space(folder, to_fetch + sum(want.locked.size for want in wanted if not _will_be_linked(want)))
    else:
        require_space(folder, to_fetch)
        require_space(target, sum(want.locked.size for want in wanted))


def _will_be_linked(want: Wanted) -> bool:
    """LLaVA's safetensors, on the same disk; of CLIP's the text tower is written, at most as much as there is."""
    return want.local.endswith(".safetensors") and LLAVA_FOLDER in want.local


def _is_complete(manifest: Manifest, variant: Variant, folder: Path, lock: LockFile) -> bool:
    """Whether every component has its locked files present, by size; `verify` compares contents."""
    for component in manifest.of(variant):
        files = {Path(path).name: path for path in lock.files if str(Path(path).parent).endswith(component.folder)}
        needed = {*component.files, *(name for pattern in component.weights for name in fnmatch.filter(files, pattern))}
        if component.weights and len(needed) == len(component.files):
            return False
        for name in needed:
            if name not in files or not is_present(folder / files[name], lock.files[files[name]]):
                return False
    return True


def is_present(path: Path, locked: LockedFile) -> bool:
    """By size; `verify` compares contents."""
    return path.is_file() and path.stat().st_size == locked.size


def is_there(want: Wanted, folder: Path, lock: LockFile) -> bool:
    """Fetched by an earlier run, or brought here by other means and of the right content."""
    path = folder / want.local
    if not is_present(path, want.locked):
        return False
    if want.local in lock.files:
        return True
    try:
        check_hash(path, want.locked)
    except VerifyError:
        return False
    return True


def bytes_to_fetch(want: Wanted, folder: Path) -> int:
    """What an earlier run has not fetched already."""
    part = partial_path(folder / want.local, want.locked)
    return max(0, want.locked.size - (part.stat().st_size if part.exists() else 0))


def _fetch_verified(locked: LockedFile, destination: Path, progress: Progress) -> None:
    """Fetch, compare with the hub's hash, and only then give the file its name."""
    fetch(locked, destination, progress)
    part = partial_path(destination, locked)
    try:
        check_size(part, locked)
        check_hash(part, locked)
    except VerifyError as error:
        part.unlink(missing_ok=True)
        raise DownloadError(f"{locked.repository}: {locked.path}: arrived damaged ({error}); run again") from error
    with disk_errors(destination):
        part.replace(destination)
