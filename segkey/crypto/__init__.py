"""From a key to a cipher: key files, the block-wise ciphers, and the ciphers as ``nn.Module``."""
