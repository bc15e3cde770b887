"""What the status route is compared with: a bare FastAPI route that returns JSON, under the same uvicorn.

`python -m server.bench.bare_api FD`
"""

import socket
import sys

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/bare")
async def bare() -> dict[str, object]:
    """About as much JSON as a status, and nothing else."""
    return {"status": "IN_QUEUE", "request_id": "x" * 36, "queue_position": 7, "url": "x" * 300}


if __name__ == "__main__":
    listener = socket.socket(fileno=int(sys.argv[1]))
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listener])
