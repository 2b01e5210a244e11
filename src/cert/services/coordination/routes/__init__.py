"""The routes of the Coordination service, each a few lines over what does the work."""
