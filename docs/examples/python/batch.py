"""A video for every image of a folder: `python batch.py photos videos "The person is waving."`

A few requests at a time; each video is downloaded as it is done, so a second run makes only those that are missing.
Needs `pip install fal-client` and `fal_plain_http.py` beside this file; HUNYUAN_URL and FAL_KEY as in `subscribe.py`.
"""

import asyncio
import os
import sys
from pathlib import Path

import fal_client
import httpx
from fal_plain_http import use_server

SERVER = os.environ.get("HUNYUAN_URL", "http://127.0.0.1:8000")
AT_ONCE = 4  # more only wait longer: the server makes one video on each of its GPUs, or groups of GPUs
SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


async def make(photo: Path, prompt: str, video: Path, http: httpx.AsyncClient) -> None:
    """One video; it appears under its name when all of it is there."""
    uri = await asyncio.to_thread(fal_client.encode_file, photo)
    result = await fal_client.subscribe_async(
        "fal-ai/hunyuan-custom", arguments={"prompt": prompt, "image_url": uri}, interval=0.5
    )
    part = video.with_suffix(".part")
    async with http.stream("GET", result["video"]["url"]) as answer:
        answer.raise_for_status()
        with part.open("wb") as file:
            async for chunk in answer.aiter_bytes():
                file.write(chunk)
    part.replace(video)


async def make_all(photos: Path, videos: Path, prompt: str) -> dict[Path, Exception]:
    """All that are missing; what went wrong with which image. One that fails does not stop the others."""
    videos.mkdir(parents=True, exist_ok=True)
    failures: dict[Path, Exception] = {}
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(photo: Path, http: httpx.AsyncClient) -> None:
        video = videos / f"{photo.name}.mp4"
        async with slots:
            try:
                await make(photo, prompt, video, http)
            except (httpx.HTTPError, fal_client.FalClientError, OSError) as error:
                failures[photo] = error
            else:
                print(video)

    found = sorted(path for path in photos.iterdir() if path.suffix.lower() in SUFFIXES)
    missing = [photo for photo in found if not (videos / f"{photo.name}.mp4").exists()]
    async with httpx.AsyncClient(follow_redirects=True) as http, asyncio.TaskGroup() as group:
        for photo in missing:
            group.create_task(one(photo, http))
    return failures


def main(photos: Path, videos: Path, prompt: str) -> int:
    """The exit code: 1 if any image has no video."""
    use_server(SERVER)
    failures = asyncio.run(make_all(photos, videos, prompt))
    for photo, error in failures.items():
        print(f"{photo}: {error}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
