"""Drawing primitives: camera, canvas, light, meshes and textures."""
