"""OpenAI-compatible HTTP layer of a replica."""
