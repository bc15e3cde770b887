"""Everything that can go wrong with files of weights, as one tree.

    WeightsError
    ├── KeyMapError            keys of a checkpoint that do not fit the model
    │   └── WrongModelError    ... because they belong to a sibling model
    ├── CheckpointError        a file that is not the checkpoint it should be
    │   ├── UnsafePickleError  ... because reading it would execute code
    │   └── BadValuesError     ... because a tensor holds NaN or infinity
    ├── StructureError         shapes, dtypes or keys differ from what the configs say
    ├── TokenizerError         the tokenizer does not produce the tokens the model was trained with
    ├── TargetError            the folder to write to is read-only, full or not replaceable
    ├── ManifestError          configs/weights.toml or its lock file is wrong
    ├── DownloadError          the hub refused, has something else, or the licence was declined
    └── VerifyError            files on disk differ from the manifest, the lock file or the model

Every message is one line that names the file and, where there is one, the key.
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """`text` with whatever a terminal would not print (line ends, control characters) written as an escape."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


class WeightsError(Exception):
    """Root of every error this package raises on purpose; `str()` is one printable line, whatever files are called."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class KeyMapError(WeightsError):
    """A key is unknown to the converted model, or one the model needs is absent."""


class WrongModelError(KeyMapError):
    """The checkpoint belongs to a sibling model (HunyuanVideo, 1.5, the audio or editing variant)."""


class CheckpointError(WeightsError):
    """A file is missing, truncated, corrupt or of a format that cannot be read here."""


class UnsafePickleError(CheckpointError):
    """The pickle refers to something other than tensors; it was not executed."""


class BadValuesError(CheckpointError):
    """A tensor holds NaN or infinity."""


class StructureError(WeightsError):
    """A tensor's shape or dtype, or the set of tensors, is not what the component's config asks for."""


class TokenizerError(WeightsError):
    """The tokenizer's template prefix, BOS or `<image>` token is not what the model expects."""


class TargetError(WeightsError):
    """The output folder cannot be written: read-only, disk full, or not a conversion that may be replaced."""


class ManifestError(WeightsError):
    """The manifest or the lock file does not read, or names something unknown."""


class DownloadError(WeightsError):
    """A download did not start or did not end."""


class VerifyError(WeightsError):
    """Files on disk are not what the manifest, the lock file or the model says."""
