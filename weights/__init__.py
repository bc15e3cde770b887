"""Model files on disk: download, convert, verify. Knows nothing of the pipeline or the server.

`commands` is the command line, `prepare` all steps in order, `convert` the conversion as a whole. Rooms: `checks` above
`hub` above `originals` above `writing`; the contract is in pyproject.toml.
"""
