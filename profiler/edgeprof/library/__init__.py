"""The functions of ``import edgeprof`` for a user's own code."""
