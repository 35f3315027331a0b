"""The models: DeepSeek-V3 style (MLA, MoE, MTP) and dense Llama style, as Hugging Face folders know them."""
