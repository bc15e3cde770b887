"""What Tencent publishes: folder layout, names of keys, readers, and the plan that turns each part into diffusers' form.

Nothing here writes: a plan is a `writing.component.Component`.
"""
