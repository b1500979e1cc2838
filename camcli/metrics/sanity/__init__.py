"""Whether the map depends on the model at all: similarities and symmetries."""
