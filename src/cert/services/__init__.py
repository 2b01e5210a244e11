"""The two services over HTTP: the Hamiltonian monitor on port 8000, the Coordination monitor on 8001."""
