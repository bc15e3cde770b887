"""Keyed files (a directory or a bucket), the scratch directory, uploads and their tokens, and URLs of own files."""
