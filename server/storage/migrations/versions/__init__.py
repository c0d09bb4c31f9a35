"""One file per revision. A revision never changes once it was released."""
