"""Point the unmodified Python `fal_client` at a server that speaks plain http.

fal_client pastes its hosts into `https://` URLs, so environment variables alone only work with TLS. It reads the
module globals below at every call (0.5.9 to 1.0.3); setting them is not an API of it, but all it takes:

    import fal_client
    from fal_plain_http import use_server      # this file, copied beside your code

    use_server("http://127.0.0.1:8000")
    fal_client.subscribe("fal-ai/hunyuan-custom", arguments={...})

Call it before the first upload. Nothing here needs the server's package.
"""

import os

import fal_client.client


def use_server(base_url: str, *, key: str | None = None) -> None:
    """Send all further calls of `fal_client` to `base_url`; `key` is used where FAL_KEY is not set."""
    base = base_url.rstrip("/")
    os.environ.setdefault("FAL_KEY", key or "local:local")
    client = fal_client.client
    client.RUN_URL_FORMAT = f"{base}/run/"
    client.QUEUE_URL_FORMAT = f"{base}/queue/"
    client.REST_URL = f"{base}/rest"
    client.CDN_URL = f"{base}/cdn"
    client.REALTIME_URL_FORMAT = f"ws{base.removeprefix('http')}/run/"
