"""What the agent is given that nobody meant well: seeded, short, and the same each time."""
