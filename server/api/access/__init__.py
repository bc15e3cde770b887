"""Who may call the API, and how often: keys, their table, the rate limit."""
