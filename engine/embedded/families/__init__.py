"""Model families: Hugging Face configuration and tensor names to a DecoderSpec and its parameters."""
