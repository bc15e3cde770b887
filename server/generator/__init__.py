"""The worker's side of the generator: the process that holds the GPU, and the messages to and from it.

`parent` runs one request at a time in it, `keeper` keeps it running, `watchdog` limits its silence. `child` is the
other side. Nothing here imports it; it is started by its name.
"""
