"""Tables, figures and pages, made from result files alone."""
