"""One module per feature: its pages and what their forms do."""
