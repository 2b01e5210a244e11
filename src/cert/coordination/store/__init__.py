"""Paid answers, kept: a killed run goes on without paying twice, a repeated one costs nothing."""

from cert.coordination.store.base import CompletionStore
from cert.coordination.store.client import CachedChatClient
from cert.coordination.store.evaluator import CachedEvaluator, keeping
from cert.coordination.store.opening import open_store
from cert.coordination.store.records import CacheStats, LostCall, LostCalls

__all__ = [
    "CacheStats",
    "CachedChatClient",
    "CachedEvaluator",
    "CompletionStore",
    "LostCall",
    "LostCalls",
    "keeping",
    "open_store",
]
