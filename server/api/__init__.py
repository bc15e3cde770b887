"""The API process: the app, its routes and middleware, and what they share. It never imports torch.

It uses every room below it and knows nothing of the worker, which it meets in the database only.
"""
