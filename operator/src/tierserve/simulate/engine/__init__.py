"""Events, slots, token batches and gateway of the simulator."""
