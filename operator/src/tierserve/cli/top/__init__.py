"""`top`: a live table of the pools of all services, of this machine or of a cluster."""
