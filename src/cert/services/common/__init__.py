"""What both services share: who may ask, limits, errors, events, health, and how a process is run."""
