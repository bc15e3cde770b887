"""Model files on disk: manifest, download, verify, convert."""
