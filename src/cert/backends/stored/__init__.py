"""Stored records: files of API responses, of our own analyses and of generations, as generations."""

from cert.backends.stored.backend import StoredBackend
from cert.backends.stored.items import StoredFormat, StoredItem, StoredOptions
from cert.backends.stored.reading import read_stored

__all__ = ["StoredBackend", "StoredFormat", "StoredItem", "StoredOptions", "read_stored"]
