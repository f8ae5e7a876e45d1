"""Status of the resource: conditions, pools, profile. Pure."""
