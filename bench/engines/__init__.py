"""Engines behind the replica, compared with their own servers."""
