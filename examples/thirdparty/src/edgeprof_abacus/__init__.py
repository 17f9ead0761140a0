"""A runtime for the abacus format, and the abacus meter, for edgeprof."""
