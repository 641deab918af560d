"""Few-step versions of a model as data: which LoRA, how strong, how many steps, on what terms."""
