"""From stored tensors to a folder that loads: tensor by tensor, in shards, whole or not there at all.

Knows no model: names, shapes and texts come with the plan.
"""
