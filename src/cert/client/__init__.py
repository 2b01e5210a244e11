"""The client of the services: typed, synchronous and asynchronous, with retries and streams.

It stands apart: it imports nothing else of CERT, so that a service can change beneath it.
"""

from cert.client.calls import Message
from cert.client.coordination import AsyncCoordinationClient, CoordinationClient
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
    Budget,
    Calibration,
    Costs,
    DriftSeries,
    Finished,
    Measurement,
    MeasurementEvent,
    MeasurementPage,
    Token,
)

__all__ = [
    "Alarm",
    "Analysis",
    "AnalysisPage",
    "AnalysisSummary",
    "AsyncCoordinationClient",
    "AsyncHamiltonianClient",
    "BatchAnswer",
    "BatchItem",
    "Budget",
    "Calibration",
    "ClientError",
    "ConnectionFailedError",
    "CoordinationClient",
    "Costs",
    "DriftSeries",
    "Finished",
    "HamiltonianClient",
    "Measurement",
    "MeasurementEvent",
    "MeasurementPage",
    "Message",
    "ProblemError",
    "ProtocolError",
    "RetryPolicy",
    "Token",
    "UnauthorizedError",
]
