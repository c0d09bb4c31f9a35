"""The page of the farm: what operators see and steer in a browser. It has no other way to the jobs than the calls."""
