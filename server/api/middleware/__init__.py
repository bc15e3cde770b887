"""What every call passes before a route sees it, one ASGI middleware a file; `api/app.py` has their order."""
