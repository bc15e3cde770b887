"""Options that many commands have, and the settings and database they lead to."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from server.errors import SettingsError
from server.settings import CONFIGS, Settings
from server.settings_loader import load_settings

if TYPE_CHECKING:
    import sqlalchemy as sa

DEMO_CONFIG = CONFIGS / "demo.toml"
_MANIFEST: Final = "weights.toml"  # in the same folder, and no configuration


def _complete_config(typed: str) -> list[str]:
    """The shipped files; the shell looks for others by itself where none of them is meant."""
    here = "" if typed.startswith("/") else f"{Path.cwd()}/"
    shipped = (str(path).removeprefix(here) for path in sorted(CONFIGS.glob("*.toml")) if path.name != _MANIFEST)
    return [path for path in shipped if path.startswith(typed)]


Config = Annotated[
    Path,
    typer.Option(help="TOML file with the settings of this deployment.", autocompletion=_complete_config),
]
DataDir = Annotated[Path | None, typer.Option(help="Where database and files live (data_dir).")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for programs.")]
ServerUrl = Annotated[str | None, typer.Option(help="Ask this server, such as http://127.0.0.1:8000.")]
Key = Annotated[str | None, typer.Option(help="Key for --server.", envvar="FAL_KEY")]


def examples(*lines: str) -> str:
    """The end of a command's help; an empty line between lines keeps them apart."""
    return "\n\n".join(["Examples:", *lines])


def read_settings(
    config: Path, data_dir: Path | None, *, worker_id: str | None = None, **api: str | int | Path | None
) -> Settings:
    """Settings with the options of the command on top; `api` are keys of that section, None where not given."""
    overrides: dict[str, Any] = {}
    given = {key: value for key, value in api.items() if value is not None}
    if given:
        overrides["api"] = given
    if data_dir is not None:
        overrides["data_dir"] = data_dir
    if worker_id is not None:
        overrides["worker_id"] = worker_id
    return load_settings(config, overrides)


def make_data_dir(settings: Settings) -> None:
    """Make the data directory if it is missing.

    Raises:
        SettingsError: it cannot be made, or is not writable for this user.
    """
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"data_dir: {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"data_dir: {folder} is not writable")


def migrated_database(settings: Settings) -> "sa.Engine":
    """The database of the deployment, created or upgraded where needed."""
    from server.db.connection import create_engine
    from server.db.migrations import migrate

    if settings.database_url.startswith("sqlite"):
        make_data_dir(settings)
    migrate(settings.database_url, settings.data_dir / "migrate.lock")
    return create_engine(settings.database_url)


def existing_database(settings: Settings) -> "sa.Engine":
    """The database of the deployment, which is only read, or changed as a running server changes it.

    Raises:
        SettingsError: there is none, or its tables are of another version; neither is made or upgraded.
    """
    from server.db.connection import create_engine, sqlite_file
    from server.db.migrations import check

    file = sqlite_file(settings.database_url)
    if file is not None and not file.exists():  # connecting would make one
        raise SettingsError(f"there is no database at {file}; name the deployment with --config or --data-dir")
    database = create_engine(settings.database_url)
    check(database)
    return database
