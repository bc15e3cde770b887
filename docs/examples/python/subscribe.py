"""One video, and the job's log as it grows: `python subscribe.py woman.jpg "A woman is playing a violin." out.mp4`

Needs `pip install fal-client` and `fal_plain_http.py` beside this file. HUNYUAN_URL names the server, FAL_KEY its key
if it asks for one.
"""

import os
import sys
from pathlib import Path

import fal_client
import httpx
from fal_plain_http import use_server

SERVER = os.environ.get("HUNYUAN_URL", "http://127.0.0.1:8000")


class Progress:
    """Prints what is new: the client asks ten times a second, and every answer brings all lines of the log so far."""

    def __init__(self) -> None:
        self._position: int | None = None
        self._printed = 0

    def __call__(self, update: fal_client.Status) -> None:
        match update:
            case fal_client.Queued(position=position) if position != self._position:
                self._position = position
                print(f"In the queue, {position} before this request")
            case fal_client.InProgress(logs=list(lines)) | fal_client.Completed(logs=list(lines)):
                for line in lines[self._printed :]:
                    print(line["message"])
                self._printed = max(self._printed, len(lines))


def main(photo: Path, prompt: str, video: Path) -> None:
    """Write the video, and print the seed that makes it again."""
    use_server(SERVER)
    result = fal_client.subscribe(
        "fal-ai/hunyuan-custom",
        arguments={"prompt": prompt, "image_url": fal_client.upload_file(photo)},
        with_logs=True,
        on_queue_update=Progress(),
    )
    with httpx.stream("GET", result["video"]["url"], follow_redirects=True) as answer, video.open("wb") as file:
        answer.raise_for_status()
        for chunk in answer.iter_bytes():
            file.write(chunk)
    print(f"{video}, seed {result['seed']}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    except fal_client.FalClientHTTPError as error:  # what the server has against the request, in its words
        sys.exit(f"HTTP {error.status_code}: {error.message}")
