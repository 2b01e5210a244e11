"""Whether a team of agents is worth it, against spending the same tokens on one."""
