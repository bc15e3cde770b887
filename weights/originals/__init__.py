"""What Tencent publishes: folder layout, names of keys, readers, and how each part becomes diffusers'.

Nothing here writes: a plan is a `writing.component.Component`.
"""
