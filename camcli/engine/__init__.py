"""Runs a model to answer what methods ask."""
