"""The worker process, which runs the workflows of the jobs: `prepare`, `render` and `publish`, in this order.

`process` starts them, beats, and looks after what does not belong to one job: workers that are gone (`takeover`), jobs
that DBOS lost (`reconcile`), what has expired (`expiry`). Uses the rooms below it, not `api` beside it, and never
imports torch.
"""
