"""Scaling rules on traces and synthetic loads, simulated."""
