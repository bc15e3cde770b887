"""From a job's `image_url` to a checked PNG in storage: the work of `prepare`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import FileDownloadError
from server.jobs.job import Job
from server.settings import Settings
from server.storage.files import Storage
from server.storage.own_urls import stored_key
from server.tracing.spans import step
from server.untrusted.addresses import OutboundPolicy
from server.untrusted.image_decoder import ImageDecoder
from server.untrusted.remote_image import ImageFetcher


class IdentityImages:
    """Finds the bytes (sent along, uploaded, or behind a URL) and has them decoded in a separate process."""

    def __init__(self, storage: Storage, settings: Settings) -> None:
        self._storage = storage
        self._decoder = ImageDecoder(settings.image)
        self._fetcher = ImageFetcher(settings.image, OutboundPolicy(settings.allow_private_networks))

    def check_in(self, job: Job) -> str:
        """Store the job's checked image and return its key.

        Raises:
            ModelError: what is wrong with the image or its URL.
        """
        key = self._storage.new_key("inputs", f"{job.id}.png")
        with self._source(job) as source, self._storage.scratch.file("checked.png") as checked:
            with step("decode image"):
                self._decoder.decode(source, checked)
            with step("store image"):
                self._storage.put(checked, key)
        return key

    @contextmanager
    def _source(self, job: Job) -> Iterator[Path]:
        """The image as it came: in storage already, or fetched now."""
        key = job.source_key or stored_key(job.input.image_url, self._storage)
        if key is None:
            with self._storage.scratch.file("source") as fetched:
                with step("fetch image"):
                    fetched.write_bytes(self._fetcher.fetch(job.input.image_url))
                yield fetched
            return
        with self._storage.local(key) as stored:
            if stored is None:
                raise FileDownloadError
            yield stored
