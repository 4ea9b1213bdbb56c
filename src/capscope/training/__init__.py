"""Training of captioners: objectives, schedules, and a loop that survives being killed."""
