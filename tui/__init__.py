"""The command line and the terminal application; imports engine, and engine never imports it."""
