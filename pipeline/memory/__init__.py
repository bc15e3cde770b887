"""Where modules live, in which dtype they compute, and how they come from files."""
