"""The client of the services: typed, synchronous and asynchronous, with retries and streams.

It stands apart: it imports nothing else of CERT, so that a service can change beneath it.
"""

from cert.client.calls import Message
from cert.client.errors import (
    ClientError,
    ConnectionFailedError,
    ProblemError,
    ProtocolError,
    UnauthorizedError,
)
from cert.client.hamiltonian import AsyncHamiltonianClient, HamiltonianClient
from cert.client.retry import RetryPolicy
from cert.client.types import (
    Alarm,
    Analysis,
    AnalysisPage,
    AnalysisSummary,
    BatchAnswer,
    BatchItem,
    Calibration,
    Finished,
    Token,
)

__all__ = [
    "Alarm",
    "Analysis",
    "AnalysisPage",
    "AnalysisSummary",
    "AsyncHamiltonianClient",
    "BatchAnswer",
    "BatchItem",
    "Calibration",
    "ClientError",
    "ConnectionFailedError",
    "Finished",
    "HamiltonianClient",
    "Message",
    "ProblemError",
    "ProtocolError",
    "RetryPolicy",
    "Token",
    "UnauthorizedError",
]
