"""Scaling rules to compare: ours, and those of the peers, each written from its public description."""
