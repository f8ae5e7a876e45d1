"""Trace-driven simulation of replicas that batch, start slowly and are scaled by a policy: no I/O, by seed."""
