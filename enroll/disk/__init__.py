"""What lies on the device's disk: safe files, the folder and what it holds, the next pair, older clients' files."""
