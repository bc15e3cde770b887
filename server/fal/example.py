"""The endpoint's own example, as far as it can be shipped: a photograph instead of fal's."""

from pathlib import Path
from typing import Final

PHOTO: Final = Path(__file__).parent / "eileen_collins.jpg"  # NASA's, public domain
