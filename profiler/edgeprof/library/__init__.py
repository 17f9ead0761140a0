"""What ``import edgeprof`` offers: the functions that a user's own code calls."""
