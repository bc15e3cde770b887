"""One video for the command line: by a generator of its own (`local`), or by a server over HTTP (`remote`).

May use the rooms that a worker uses, but no database and no job; `outcome` is what both ways end with.
"""
