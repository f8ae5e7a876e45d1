"""CPU and memory of the operator, and time from apply to Ready."""
