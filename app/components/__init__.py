"""Pieces of pages: pure functions from records to escaped HTML, and the two Gradio components of our own."""
