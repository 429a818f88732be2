"""The parts of a run: the folder it works in, fingerprints, the log and the receipt."""
