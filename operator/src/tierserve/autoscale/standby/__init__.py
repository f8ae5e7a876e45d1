"""Standby replicas: rules and the policy that chooses among them."""
