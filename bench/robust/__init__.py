"""Whether scaling rules generalise to loads that nobody developed on."""
