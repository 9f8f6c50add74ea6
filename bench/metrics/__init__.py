"""What each number means: pure functions over records."""
