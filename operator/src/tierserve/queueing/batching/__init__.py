"""Queues whose servers are batches: profile, response times, bursts, prefill stalls."""
