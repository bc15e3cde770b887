"""Are the files the model? Verification, key coverage, synthetic checkpoints, the converter's benchmark.

May use every other room; only the commands, `prepare` and the pipeline use this one.
"""
