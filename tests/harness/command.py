"""The command line in this process, as its entry point runs it."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from server.cli.main import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def run_command(*words: str) -> Ran:
    """Its exit code and what it printed; an exception that leaves it is a traceback on a user's terminal."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["hunyuan-custom", *words])
        try:
            main()
        except SystemExit as end:
            return Ran(int(end.code or 0), out.getvalue(), err.getvalue())
    return Ran(0, out.getvalue(), err.getvalue())
