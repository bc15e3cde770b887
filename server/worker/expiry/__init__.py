"""What is removed in time: results past their retention, files that no job names. A thread of its own sweeps."""
