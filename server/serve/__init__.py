"""Running a server: the supervisor of its processes, readiness, TLS, draining, backup."""
