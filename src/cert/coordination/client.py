"""The chat clients under the names of version 4; each vendor's SDK loads when its client is made."""

from __future__ import annotations

from cert.coordination.chat import ChatClient, ChatIdentity, ChatRequest, Completion, Tool, Usage
from cert.coordination.clients.accounts import CostStats
from cert.coordination.clients.anthropic import AnthropicClientWithResilience
from cert.coordination.clients.in_process import InProcessChatClient
from cert.coordination.clients.openai import OpenAIChatClient
from cert.coordination.clients.prices import Price, Tier

__all__ = [
    "AnthropicClientWithResilience",
    "ChatClient",
    "ChatIdentity",
    "ChatRequest",
    "Completion",
    "CostStats",
    "InProcessChatClient",
    "OpenAIChatClient",
    "Price",
    "Tier",
    "Tool",
    "Usage",
]
