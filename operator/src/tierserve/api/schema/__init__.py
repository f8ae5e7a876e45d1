"""CustomResourceDefinition, CEL rules and validation made from the models."""
