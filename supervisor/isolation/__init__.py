"""Task processes, and what holds them: the zygote, limits, cgroups."""
