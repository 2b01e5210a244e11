"""Whether a team of agents is worth it, against spending the same tokens on one.

::

    client = AnthropicClientWithResilience(api_key="…", requests_per_minute=50, max_cost_per_hour=10.0)
    evaluator = QualityEvaluator(client)
    orchestrator = CoordinationOrchestrator(client, BaselineMeasurer(client, evaluator), evaluator)
    metrics = await orchestrator.measure_coordination("Explain quantum computing", num_agents=3)
    report = await orchestrator.measure_suite(tasks, ["parallel", "debate"])

Names are loaded when they are used: importing this package loads no vendor's SDK and no database.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cert.coordination.baseline import BaselineMeasurement, BaselineMeasurer
    from cert.coordination.chat import ChatClient, ChatIdentity, ChatRequest, Completion, Tool, Usage
    from cert.coordination.clients.anthropic import AnthropicClientWithResilience
    from cert.coordination.clients.in_process import InProcessChatClient
    from cert.coordination.clients.openai import OpenAIChatClient
    from cert.coordination.evaluators.quality import QualityEvaluator
    from cert.coordination.metrics import CoordinationMetrics
    from cert.coordination.orchestrator import CoordinationOrchestrator
    from cert.coordination.strategies.team import Agent, Team
    from cert.coordination.suite.report import CoordinationReport
    from cert.coordination.systems import FunctionSystem, System, TeamSystem
    from cert.coordination.types import AgentResponse, Evaluation, Interval, Task, Transcript, Verdict

_HOMES = {
    "Agent": "strategies.team",
    "AgentResponse": "types",
    "AnthropicClientWithResilience": "clients.anthropic",
    "BaselineMeasurement": "baseline",
    "BaselineMeasurer": "baseline",
    "ChatClient": "chat",
    "ChatIdentity": "chat",
    "ChatRequest": "chat",
    "Completion": "chat",
    "CoordinationMetrics": "metrics",
    "CoordinationOrchestrator": "orchestrator",
    "CoordinationReport": "suite.report",
    "Evaluation": "types",
    "FunctionSystem": "systems",
    "InProcessChatClient": "clients.in_process",
    "Interval": "types",
    "OpenAIChatClient": "clients.openai",
    "QualityEvaluator": "evaluators.quality",
    "System": "systems",
    "Task": "types",
    "Team": "strategies.team",
    "TeamSystem": "systems",
    "Tool": "chat",
    "Transcript": "types",
    "Usage": "chat",
    "Verdict": "types",
}

__all__ = [
    "Agent",
    "AgentResponse",
    "AnthropicClientWithResilience",
    "BaselineMeasurement",
    "BaselineMeasurer",
    "ChatClient",
    "ChatIdentity",
    "ChatRequest",
    "Completion",
    "CoordinationMetrics",
    "CoordinationOrchestrator",
    "CoordinationReport",
    "Evaluation",
    "FunctionSystem",
    "InProcessChatClient",
    "Interval",
    "OpenAIChatClient",
    "QualityEvaluator",
    "System",
    "Task",
    "Team",
    "TeamSystem",
    "Tool",
    "Transcript",
    "Usage",
    "Verdict",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
