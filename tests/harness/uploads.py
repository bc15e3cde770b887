"""The first call of an upload."""

from tests.harness.live_server import Server

INITIATE = "/rest/storage/upload/initiate"


def initiate(server: Server, content_type: str = "image/png", name: str = "w.png") -> dict[str, str]:
    answer = server.http.post(INITIATE, json={"content_type": content_type, "file_name": name})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
