"""Kubernetes runtime: applies objects server-side; KubeRay and the kubelets run them."""
