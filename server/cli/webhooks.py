"""`hunyuan-custom webhooks ...`: the outbox, beside a running server."""

from typing import Annotated, Literal, TypeAlias

import typer

from server.cli.options import DEMO_CONFIG, Config, DataDir, migrated_database
from server.errors import RequestError, SettingsError

WebhookState: TypeAlias = Literal["pending", "delivered", "failed"]

webhooks = typer.Typer(help="List the deliveries to fal_webhook, or repeat one.", no_args_is_help=True)


@webhooks.command("list")
def list_webhooks(
    state: Annotated[WebhookState | None, typer.Option(help="Only deliveries in this state.")] = None,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
) -> None:
    """Deliveries, the latest first."""
    from server.webhooks.outbox import WebhookOutbox

    for one in WebhookOutbox(migrated_database(config, data_dir)).all(state=state):
        typer.echo(f"{one.request_id}  {one.state}  attempts {one.attempts}  {one.outcome or '-'}")


@webhooks.command("redeliver")
def redeliver(request_id: str, config: Config = DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Deliver a request's result again, with the whole schedule."""
    from server.webhooks.outbox import WebhookOutbox

    try:
        WebhookOutbox(migrated_database(config, data_dir)).redeliver(request_id)
    except RequestError as error:
        raise SettingsError(str(error)) from error
    typer.echo(f"{request_id} will be delivered again")
