"""A model as found on disk or on the Hub: its configuration, its tensors, its tokenizer."""
