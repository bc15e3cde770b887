"""Are the files the model? Verification, key coverage, synthetic checkpoints, the converter's benchmark."""
