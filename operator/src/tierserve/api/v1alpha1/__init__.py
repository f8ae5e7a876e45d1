"""The resource of version v1alpha1 as frozen values."""
