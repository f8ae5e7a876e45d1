"""Planning, without I/O: hardware and models to slots and rates, placements, capacity, criteria, autoscaling."""
