"""`python -m server`: the `hunyuan-custom` command where its script is not on the path."""

from server.quick_start import uncollected

with uncollected():
    from server.cli.main import main

main()
