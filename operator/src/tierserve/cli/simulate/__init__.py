"""`tierserve simulate`."""
