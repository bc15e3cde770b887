"""The fal API of the endpoint and the life of a job.

Rooms, from the top: `cli`; `bench`, `doctor` and `generate`; `serve`; `api` and `worker`; `storage` and `webhooks`;
`generator`, `jobs` and `untrusted`; `db` and `fal`; `tracing`. A room uses those below it and never one beside it;
`settings`, `errors`, `logs`, `parent_death`, `quick_start` and `service_manager` are for all. `generator.child` alone
imports torch and the pipeline.
"""
