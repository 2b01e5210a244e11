"""A gate with a stated error rate: labelled answers, thresholds with a promise, and their certificate."""
