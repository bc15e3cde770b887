"""Model files on disk: manifest, download, convert, verify."""
