"""The small reference model: its world, its training and its evaluation."""
