"""Gateway processes: HAProxy (binary, admin socket, container entry point) and the agent that sets its limits."""
