"""The data of a server: its tables and all that reads and changes them. It knows nothing of HTTP."""
