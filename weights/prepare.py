"""From nothing to a model that loads: download, convert, verify; doing nothing where nothing is to be done."""

from __future__ import annotations

from pathlib import Path

from weights.checks.companion_check import check_companion
from weights.checks.verify import verify
from weights.convert import convert, is_current, recorded_variant
from weights.errors import TargetError, VerifyError, WeightsError
from weights.hub.companions import fetch_companion
from weights.hub.download import Ask, download, remove_damaged
from weights.hub.lock_file import LOCK_NAME
from weights.hub.manifest import Manifest
from weights.originals.layout import Variant, find_original
from weights.reporter import Reporter
from weights.writing.staging import check_target, remove_left_overs


def prepare(
    manifest: Manifest, variant: Variant, *, originals: Path, target: Path, ask: Ask, reporter: Reporter
) -> None:
    """Make `target` a verified model of `variant`. Raises `WeightsError`.

    Idempotent: a sound conversion whose originals have not changed, or have been deleted, is left alone. An original
    that turns out to be damaged is fetched again, once.
    """
    check_target(target)
    sound = recorded_variant(target) == variant and not verify(target, contents=False)
    if sound and not _has_originals(originals, variant):
        reporter.say(f"{target}: ready (its originals are gone, which is fine)")
        return
    if sound and is_current(originals, target, variant):
        reporter.say(f"{target}: ready")
        return
    remove_left_overs(target)

    def fetch() -> None:
        fetched = download(manifest, variant, originals, ask=ask, reporter=reporter, target=target)
        reporter.say(f"{originals}: {fetched} files fetched")

    def make() -> None:
        made = convert(originals, target, variant=variant, reporter=reporter)
        reporter.say(f"{target}: {made.original_keys} tensors of the transformer became {made.produced_keys}")

    if not _has_originals(originals, variant) or (originals / LOCK_NAME).is_file():
        fetch()
    if not sound or not is_current(originals, target, variant):
        try:
            make()
        except TargetError:
            raise
        except WeightsError:
            if not remove_damaged(variant, originals, manifest, reporter.say):
                raise
            fetch()
            make()
    faults = verify(target, contents=False)
    if faults:
        raise VerifyError(faults[0])
    reporter.say(f"{target}: ready")


def prepare_companions(manifest: Manifest, models: Path, *, reporter: Reporter) -> None:
    """Every companion complete in its folder below `models`. Raises `WeightsError`."""
    for companion in manifest.companions:
        folder = models / companion.folder
        fetch_companion(companion, folder, reporter=reporter)
        check_companion(folder)
        reporter.say(f"{folder}: ready ({companion.repository.name}, {companion.licence})")


def _has_originals(originals: Path, variant: Variant) -> bool:
    try:
        find_original(originals, variant)
    except WeightsError:
        return False
    return True
