"""One screen a file: the steps of an export, and what can be opened from them."""
