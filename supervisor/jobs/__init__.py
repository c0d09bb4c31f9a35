"""A job and its tasks, from their data to their record."""
