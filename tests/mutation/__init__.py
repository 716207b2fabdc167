"""Changes the code at random places, one at a time, and reports the changes that no test notices.

`make mutants` runs it. cosmic-ray and mutmut have no bounded sample with a seed and no choice of
tests for each module; mutatest, which samples, is no longer maintained.
"""
