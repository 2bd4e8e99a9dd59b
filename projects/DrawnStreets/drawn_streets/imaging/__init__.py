"""From a drawn scene to an image: sky, shadows, weather, lens and camera pipeline."""
