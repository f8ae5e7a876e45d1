"""`doctor`: checks of what a service needs, on this machine and in a cluster."""
