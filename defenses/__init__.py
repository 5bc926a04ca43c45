"""Training of robust models: data sets, architectures, attacks, methods, the loop, evaluation."""
