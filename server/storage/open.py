"""The file store of a deployment, from its settings."""

from server.settings import Settings
from server.storage.files import Storage
from server.storage.local import LocalStorage
from server.storage.scratch import Scratch


def open_storage(settings: Settings) -> Storage:
    """A directory, or the bucket that `storage_url` names."""
    if not settings.storage_url:
        return LocalStorage(settings.data_dir)
    from server.storage.s3 import ObjectStorage  # needs the extra `cluster`

    return ObjectStorage(settings.storage_url, settings.object_storage, scratch=Scratch(settings.data_dir))
