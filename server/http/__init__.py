"""HTTP below the routes: connections, and tokens."""
