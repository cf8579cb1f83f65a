"""Long runs: processes killed at random under load, and thousands of random scripts (`make soak`)."""
