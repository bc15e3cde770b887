"""The routes, one file for each part of fal's API."""
