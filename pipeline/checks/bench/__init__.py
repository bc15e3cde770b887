"""`hunyuan-custom bench model`: where the time of a request goes on this machine, and what could be had.

`run` goes through the stages, each in a file of its own: `ceilings`, `step`, `shares`, `options`, `decode`, `encode`,
`reuse`. `subject` makes what they measure, `operations` lists its matrix products, `stopwatch` times, `table` and
`plot` report.
"""
