"""Databases whose texts can be read with the operator's key alone."""
