"""The worker process: prepare, render, publish; taking over from lost workers; removing what has expired."""
