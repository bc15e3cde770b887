"""What LLaVA writes before it encodes: a fuller prompt, the subject's name, answers to questions.

It is the model that the pipeline has loaded for its prompts, with the head that makes words of its states. `chat` asks
it; `expansion` and `subject_name` say what is asked and what is accepted as an answer; `writer` is one interface over
them and over `rules`, which the demo uses, whose model has learned nothing.
"""
