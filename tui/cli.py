"""Argument parsing; chooses headless or the app."""
