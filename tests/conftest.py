"""Settings of all tests."""

from hypothesis import settings

# No deadline: a shared machine may stall any example. The same examples each time: a failure can be repeated.
settings.register_profile("segwright", deadline=None, derandomize=True)
settings.load_profile("segwright")
