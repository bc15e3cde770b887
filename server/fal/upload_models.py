"""The answers of fal's file storage, and what a client says of a file before it sends it."""

from typing import Literal

from pydantic import BaseModel, Field


class UploadDescription(BaseModel):
    """What is going to be uploaded."""

    content_type: str = Field(default="", examples=["image/png"])
    file_name: str = Field(default="", examples=["woman.png"])


class UploadUrls(BaseModel):
    """Where to PUT the bytes, and the URL to submit."""

    upload_url: str
    file_url: str


class StoredUrl(BaseModel):
    """The URL of an upload that was put."""

    url: str


class AccessUrl(BaseModel):
    """The URL of an upload that was posted."""

    access_url: str


class CdnToken(BaseModel):
    """What `POST /cdn/files/upload` takes as its bearer token."""

    token: str
    token_type: Literal["Bearer"]
    base_url: str
    expires_at: str = Field(json_schema_extra={"format": "date-time"})
