"""What a machine can be asked about the model: a full-size forward, the time to load."""
