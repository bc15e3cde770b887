"""The worker's side of the generator: messages, the parent of the process, and the watchdog.

`child` is the other side. Nothing here imports it; it is started by its name.
"""
