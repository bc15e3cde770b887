"""ASGI middleware, one a file; `api/app.py` lists them in their order."""
