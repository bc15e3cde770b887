"""Running a server on one machine: the supervisor, readiness, TLS, backup."""
