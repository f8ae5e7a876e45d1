"""Web console: one page with the services of this machine or of a cluster, read only."""
