"""What this machine has for making model libraries: probes, findings, verdicts, remedies."""
