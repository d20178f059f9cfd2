"""The pipeline's stages, one module each: the file name is the stage's name, the constant STAGE its object."""
