"""Replicas for a recorded trace: replay of its arrivals, and search by simulation."""
