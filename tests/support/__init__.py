"""What several test modules share; it imports no test module."""
