"""Two images of one scene: which places they share, how the camera moved between them, and how a place did."""
