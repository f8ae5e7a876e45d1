"""Gateway: deployment -> HAProxy configuration and its agent's configuration."""
