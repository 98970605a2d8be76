"""Simulated metric RGB-D scenes: furniture, objects and movers, exact cameras; knows nothing about questions."""
