"""Cryptography: key files, sealing, the block-wise ciphers, and the ciphers as ``nn.Module``."""

# The paper's methods and block sizes (its Table 1), in its order, and all built-in methods.
# They stand here, as the command line's completion needs them before it may load NumPy;
# `segkey.crypto.ciphers.METHODS` holds the ciphers, also those of a user's own.
PROTECTED = ("shf", "np", "ffx")
METHODS = (*PROTECTED, "shf+np")
LOCKING = ("shf", "np", "shf+np")  # that a trained model can be locked with
BLOCK_SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
