"""Best model variant and traffic share per tier at least cost, energy, carbon or latency (mixed-integer program)."""
