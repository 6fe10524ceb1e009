"""How fast, how small: measured on one machine in one run, and told as ratios within it."""
