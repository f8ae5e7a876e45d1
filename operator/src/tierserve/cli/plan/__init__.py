"""`tierserve plan`."""
