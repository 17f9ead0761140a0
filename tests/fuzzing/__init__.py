"""Fuzzing of every reader: ``python -m tests.fuzzing --cases 10000``; the tests run a few hundred cases of each."""
