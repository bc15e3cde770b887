"""What is published where, and fetching it: manifest, download, lock file."""
