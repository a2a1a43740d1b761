"""What the machine gives: files, seeds, words, progress, worker processes, devices, torchrun,
plug-ins."""
