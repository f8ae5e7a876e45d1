"""p95 from 10 to 500,000 connections, simulated."""
