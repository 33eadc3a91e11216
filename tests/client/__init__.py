"""Tests of the library for programs, and of the map that lookups read."""
