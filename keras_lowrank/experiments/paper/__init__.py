"""Every figure of the paper's experiments: its grid, numbers and claims."""
