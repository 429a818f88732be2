"""The compiler front end behind the default backend; `python -m engine.embedded --help` runs it by hand."""
