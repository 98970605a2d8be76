"""What a model knows of 3D without saying it: depth probes, lifted scenes, and how both relate to its answers."""
