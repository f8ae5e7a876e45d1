"""What `objective.optimize` saves in a day of changing carbon intensities."""
