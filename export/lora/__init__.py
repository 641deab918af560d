"""LoRAs of every common file layout, fused into a network before it is quantized."""
