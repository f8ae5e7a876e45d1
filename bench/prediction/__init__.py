"""Predicted, measured and simulated response times compared."""
