"""`make demo`: a device's first boot, and its end, on the embedded stack. No product code imports this package."""
