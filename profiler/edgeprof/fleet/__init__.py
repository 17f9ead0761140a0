"""Measure many devices from one machine: the inventory, the connection, the device's side of it, and the jobs."""
