"""Models: networks, weights, training, the folder of a run, evaluation and prediction."""
