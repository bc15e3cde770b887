"""Keyed files (a directory or a bucket), uploads, and the URLs under which this server serves them."""
