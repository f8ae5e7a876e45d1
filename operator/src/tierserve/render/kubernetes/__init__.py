"""Plan -> Kubernetes objects."""
