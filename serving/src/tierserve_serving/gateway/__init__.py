"""The gateway's running parts: the HAProxy binary, its admin socket, and the agent that sets limits and measures."""
