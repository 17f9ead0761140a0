"""Many devices measured from one desk: the inventory, the wire, the device's end of it, and the jobs."""
