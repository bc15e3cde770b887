"""The embedded demo model: the real classes with a tiny, untrained, hand-set configuration.

A built model is rebuilt when any file of this folder has changed.
"""
