"""What measures speed and quality."""
