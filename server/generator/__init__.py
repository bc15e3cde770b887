"""The worker's side of the generator: the process that holds the GPU, and the messages to and from it.

`parent` runs one request at a time in it, `keeper` keeps it running, `watchdog` limits its silence, `faults` are how a
request ends without a video. `child` is the other side. Nothing here imports it; it is started by its name.
"""
