"""How many cases the fuzz tests try: `--hypothesis-profile=benchmark` tries 20,000."""

from hypothesis import settings

settings.register_profile("benchmark", max_examples=3510)
