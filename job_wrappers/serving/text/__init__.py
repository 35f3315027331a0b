"""Between text and tokens: templates, incremental detokenisation, stop strings."""
