"""What runs on the device: enrollment, connection and tunnel of the first boot."""
