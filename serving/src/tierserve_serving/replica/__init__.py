"""One replica: slots, worker, counters."""
