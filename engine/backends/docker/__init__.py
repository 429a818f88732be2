"""The stages in a container of the image that docker/Dockerfile.mlc makes."""
