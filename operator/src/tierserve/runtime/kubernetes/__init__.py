"""The runtime on Kubernetes: objects by server-side apply; what runs is KubeRay's and the kubelets' business."""
