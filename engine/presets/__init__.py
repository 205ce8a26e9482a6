"""Settings by name: how many steps, which sampler and schedule, how much guidance."""
