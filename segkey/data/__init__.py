"""Data: layouts of folders, decoding, masks, augmentation, built-in scenes, palettes."""
