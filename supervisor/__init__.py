"""The supervisor: owns the heartbeat and the API session, runs jobs, and imports no module, ever."""
