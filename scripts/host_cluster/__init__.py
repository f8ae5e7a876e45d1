"""A Kubernetes cluster on this host, without Docker: for each node of kind-config.yaml a kubelet and a containerd."""
