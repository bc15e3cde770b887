"""Where modules are kept, the dtypes of their weights, and how they are loaded from files."""
