"""What an operator can measure on his own machine, through real processes."""
