"""The spans of a job's workflows; those of an attempt's stages are in `measuring`."""

from server.jobs.job import Job
from server.tracing.spans import NO_SPAN, NOTHING, REQUEST_ID, Attributes, Span, continued


def job_span(name: str, job: Job, attributes: Attributes = NOTHING) -> Span:
    """Begin one below the submit's, if the job is traced."""
    span = continued(name, {REQUEST_ID: job.id, **attributes}, traceparent=job.traceparent)
    wanted = None if span is NO_SPAN else job.input_or_none
    if wanted is not None:
        span.note(
            {
                "hc.resolution": wanted.resolution,
                "hc.aspect_ratio": wanted.aspect_ratio,
                "hc.frames": wanted.num_frames,
                "hc.steps": wanted.num_inference_steps,
            }
        )
    return span


def note_wait(job: Job) -> None:
    """The span of the time from the submit to the first attempt."""
    span = continued("wait", {REQUEST_ID: job.id}, traceparent=job.traceparent, began=job.created_at)
    span.end(job.started_at)
