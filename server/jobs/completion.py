"""What is written in the same transaction as a job's end: its usage record, and its webhook if one was asked for."""

import sqlalchemy as sa

from server.db.tables import usage_table, webhook_table
from server.jobs.job import Job

COMPLETED = "completed"
PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"  # of a webhook: to be delivered, taken, given up


def record_end(transaction: sa.Connection, job: Job) -> None:
    """Record the end of a job; the usage record stays when the request is deleted."""
    transaction.execute(usage_table.insert().values(**_usage(job)))
    if job.webhook_url is not None:
        due = {"request_id": job.id, "url": job.webhook_url, "state": PENDING, "next_at": job.finished_at}
        transaction.execute(webhook_table.insert().values(**due))


def _usage(job: Job) -> dict[str, object]:
    finished = job.finished_at or job.created_at
    held = finished - job.started_at if job.started_at is not None else 0.0
    asked = job.input_or_none
    return {
        "request_id": job.id,
        "owner": job.owner,
        "finished_at": finished,
        "outcome": job.error_type or COMPLETED,
        # A job without a result held the GPU from its start to its end, waits between attempts included.
        "gpu_seconds": job.inference_time if job.inference_time is not None else held,
        "frames": asked.num_frames if asked else None,
        "resolution": f"{asked.resolution} {asked.aspect_ratio}" if asked else None,
    }
