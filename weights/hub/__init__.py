"""What is published where, and fetching it: manifest, download, lock file.

Uses `originals` for the names of files, `writing` for reading them in chunks.
"""
