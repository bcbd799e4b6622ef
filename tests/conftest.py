"""Settings of all property tests, whichever of them are run."""

from hypothesis import settings

# No time limit for one example: a busy machine is not a defect.
settings.register_profile("bezant", deadline=None)
settings.load_profile("bezant")
