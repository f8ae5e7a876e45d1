"""Forecast of the arrival rate over the start-up time of a replica, with intervals."""
