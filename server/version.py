"""The version of this server: pyproject.toml, the API's schema and `--version` read it here."""

from typing import Final

VERSION: Final = "0.2.0"
