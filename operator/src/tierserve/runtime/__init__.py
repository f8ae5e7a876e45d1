"""Runtimes: `kubernetes` (server-side apply) and `local` (processes of this machine)."""
