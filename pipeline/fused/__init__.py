"""The passes over memory between a block's Linear layers and its attention: eager, or each compiled into one kernel."""
