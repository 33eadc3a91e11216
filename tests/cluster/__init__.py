"""Clusters of servers: forming, joining, leaving, recovery; on virtual time, and as real processes."""
