"""From a plan to the text and objects that a runtime applies: pure functions, no I/O."""
