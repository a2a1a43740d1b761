"""The network, its weights and training, its folder (a run), its evaluation and predictions."""
