"""The Coordination service: measurements of teams as jobs, what they cost, and how systems drift."""
