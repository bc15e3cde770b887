"""What Tencent publishes: folder layout, names of keys, and the plan that turns each part into diffusers' form."""
