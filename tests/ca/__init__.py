"""Tests of the mesh's authority: certificates, providers and their configuration."""
