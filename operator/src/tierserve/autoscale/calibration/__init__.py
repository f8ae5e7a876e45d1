"""Batching profile estimated from what replicas report (recursive least squares)."""
