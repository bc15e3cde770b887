"""`hunyuan-custom webhooks ...`: the outbox, beside a running server."""

from dataclasses import asdict
from typing import Annotated, Literal, TypeAlias

import typer

from server.cli.options import DEMO_CONFIG, AsJson, Config, DataDir, examples, migrated_database, read_settings
from server.cli.output import print_json, print_rows

WebhookState: TypeAlias = Literal["pending", "delivered", "failed"]

webhooks = typer.Typer(help="List the deliveries to fal_webhook, or repeat one.", no_args_is_help=True)


@webhooks.command("list", epilog=examples("hunyuan-custom webhooks list --state failed"))
def list_webhooks(
    state: Annotated[WebhookState | None, typer.Option(help="Only deliveries in this state.")] = None,
    config: Config = DEMO_CONFIG,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Deliveries, the latest first."""
    from server.webhooks.outbox import WebhookOutbox

    found = WebhookOutbox(migrated_database(read_settings(config, data_dir))).all(state=state)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [(one.request_id, one.state, one.attempts, one.outcome) for one in found]
    print_rows(("request", "state", "attempts", "outcome"), rows)


@webhooks.command("redeliver", epilog=examples("hunyuan-custom webhooks redeliver 1f6a..."))
def redeliver(request_id: str, config: Config = DEMO_CONFIG, data_dir: DataDir = None) -> None:
    """Deliver a request's result again, with the whole schedule."""
    from server.webhooks.outbox import WebhookOutbox

    WebhookOutbox(migrated_database(read_settings(config, data_dir))).redeliver(request_id)
    typer.echo(f"{request_id} will be delivered again")
