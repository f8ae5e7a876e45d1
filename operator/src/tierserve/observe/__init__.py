"""Observation: Kubernetes objects, Ray Serve's REST API and the gateway agents, as `Observed`."""
