"""Speed and error of the formulas, of the planner and of the simulator."""
