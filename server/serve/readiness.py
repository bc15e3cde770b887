"""Whether a server can make videos yet."""

import time

import httpx


def wait_until_ready(url: str, *, timeout_s: float) -> None:
    """Block until the server can make videos.

    Raises:
        TimeoutError: with the last reason it gave.
    """
    deadline = time.monotonic() + timeout_s
    reason = "no answer"
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < deadline:
            try:
                answer = client.get(f"{url}/health/ready")
                if answer.status_code == httpx.codes.OK:
                    return
                reason = answer.text
            except httpx.TransportError as error:
                reason = str(error)
            time.sleep(0.2)
    raise TimeoutError(f"the server was not ready within {timeout_s:g} s: {reason}")
