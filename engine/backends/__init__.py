"""Backends turn a plan into the commands of its stages; the runner runs them."""
