"""The daemon: takes jobs from the server, and reports how they ended."""
