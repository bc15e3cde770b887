"""What is published where, and fetching it: manifest, download, lock file. Uses `originals` for names of files only."""
