"""From files to arrays: layouts of folders, decoding, masks, augmentation, built-in scenes, colours
of classes."""
