"""Image encoders without a language model: families whose features another model puts into words ([explainer])."""
