"""What people and machines are shown of the device; nothing here decides anything."""
