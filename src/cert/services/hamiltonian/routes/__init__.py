"""The routes of the Hamiltonian service, each a few lines over what does the work."""
