"""Containers, images and volumes on this host: adapters to crun, conmon, skopeo, buildah and files."""
