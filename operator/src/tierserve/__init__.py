"""TierServe: tiered generative-AI serving on Kubernetes and on one machine."""
