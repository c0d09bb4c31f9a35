"""What a server tells of the farm to those who look on: events and metrics. It changes nothing."""
