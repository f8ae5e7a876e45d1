"""Replicas and gateway on real Ray Serve and HAProxy."""
