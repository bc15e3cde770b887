"""A pydantic model as the body of a response."""

from fastapi.responses import Response
from pydantic import BaseModel


class ModelResponse(Response):
    """JSON of the fields that were set, in the order of the model."""

    media_type = "application/json"

    def render(self, content: BaseModel) -> bytes:
        """The body."""
        return content.model_dump_json(exclude_unset=True).encode()
