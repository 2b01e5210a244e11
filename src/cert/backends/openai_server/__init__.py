"""Servers that speak the OpenAI API: vLLM, SGLang, llama.cpp, TGI, OpenAI and others."""

from cert.backends.openai_server.backend import OpenAIBackend
from cert.backends.openai_server.dialects import DIALECTS, Dialect
from cert.backends.openai_server.lanes import ServerLimits
from cert.backends.openai_server.probe import Profile

__all__ = ["DIALECTS", "Dialect", "OpenAIBackend", "Profile", "ServerLimits"]
