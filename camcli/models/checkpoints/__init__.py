"""Files of weights, and how their names are matched to a model's."""
