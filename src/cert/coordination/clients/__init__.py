"""Chat clients, one module a dialect, and what all of them share."""
