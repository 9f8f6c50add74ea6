"""What is measured? One file per column group of the leaderboard."""
