"""Scaling rules on traces and made-up loads, simulated."""
