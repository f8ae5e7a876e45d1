"""What the operator costs, and how long from apply to ready."""
