"""Both sides beside each other, and sending what a platform lost."""
