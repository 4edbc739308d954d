"""What is to be scanned, and what again."""
