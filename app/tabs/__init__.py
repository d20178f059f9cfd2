"""One module per tab: ``build`` makes its components, pure module-level functions make its content."""
