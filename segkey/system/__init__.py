"""System services: files, seeds, words, progress, workers, devices, torchrun, plug-ins."""
