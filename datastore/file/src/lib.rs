//! The objects of a cluster as YAML files in a directory.
