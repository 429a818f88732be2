"""The probes, one module a group. Nothing heavy is imported before a probe looks."""
