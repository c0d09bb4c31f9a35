"""Commands that steer a farm through its API server: synchronous, one call after the other."""
