"""The generator process: the only place that imports torch and the pipeline."""
