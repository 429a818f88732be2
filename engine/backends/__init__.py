"""A plan to the commands of its stages: one module for each compiler that can run them."""
