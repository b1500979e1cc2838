"""How passes are fitted to a device: its memory, its clock, its precision."""
