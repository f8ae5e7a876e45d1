"""`tierserve load`."""
