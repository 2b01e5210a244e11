"""What agents are told: versioned sets of templates, as data. A new wording is a new version.

``v1`` is for general chat models. ``reference-v1`` has the strings that the reference model was trained on,
and no others. A user's own set is a file or a mapping of the same form.
"""

from cert.coordination.prompts.loading import known_prompts, load_prompts
from cert.coordination.prompts.templates import ROLES, Prompt, PromptSet

__all__ = ["ROLES", "Prompt", "PromptSet", "known_prompts", "load_prompts"]
