"""World of drawn faces that the embedded models are trained on."""
