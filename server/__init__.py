"""The fal API of the endpoint and the life of a job."""
