"""A job in SQL: its states, the fair queue, its end, how it looks from outside, and who works on it."""
