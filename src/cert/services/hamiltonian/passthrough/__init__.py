"""An OpenAI-compatible front: answers of an engine, or of the models in process, each with its verdict."""
