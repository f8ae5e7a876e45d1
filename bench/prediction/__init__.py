"""Predicted beside measured and simulated response times."""
