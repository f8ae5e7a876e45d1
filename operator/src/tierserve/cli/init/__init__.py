"""`init`: a new service file from flags or questions."""
