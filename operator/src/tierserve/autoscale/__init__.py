"""The scaling decision: (observation, state, settings) -> (decision, state). Pure; imports `queueing` only."""
