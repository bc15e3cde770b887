"""Running a server: the supervisor of its processes, their GPUs, readiness, TLS, draining, backup."""
