"""Ids on disk."""
