"""Decoder models as Hugging Face stores them, run over flat token batches."""
