"""What is refused: prompts (`prompt_words`), identity images and the frames of a finished clip (`classifier`).

`checker` is what a request passes. `prompt_words` and `flagged` need no torch: the server reads prompts when they are
submitted. Uses `memory`, nothing beside it.
"""
