"""What mlc-wizard does, without a user interface: importing this package imports nothing else."""
