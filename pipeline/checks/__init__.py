"""What an operator can measure about the model on a machine: a full-size forward, the time to load."""
