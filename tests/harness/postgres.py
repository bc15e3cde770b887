"""The Postgres of the tests is the one that benchmarks use."""

from server.bench.throwaway_postgres import Postgres, find_binaries

__all__ = ["Postgres", "find_binaries"]
