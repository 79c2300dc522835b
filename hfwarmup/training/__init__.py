"""The schedules at work: the torch scheduler, the registration with transformers, callbacks, arguments, data."""
