"""From stored tensors to a folder that loads: streamed, sharded, whole or not there at all."""
