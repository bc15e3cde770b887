"""A job in SQL: its states, the fair queue, its end, its JSON for clients, usage records, and the workers there are."""
