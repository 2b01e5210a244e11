"""What other programs keep, read for the monitors: each integration is a package of its own."""
