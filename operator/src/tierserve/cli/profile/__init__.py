"""`tierserve profile`."""
