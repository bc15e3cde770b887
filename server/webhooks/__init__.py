"""Delivery of results: the outbox in SQL, the sender, signatures, and which targets are allowed."""
