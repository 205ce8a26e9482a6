"""What quantization loses, on ordinary weights and on weights that are hard to quantize; ours beside others'."""
