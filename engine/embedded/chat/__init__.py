"""From a model's own chat template to MLC's conversation template, with proof of how exact it is."""
