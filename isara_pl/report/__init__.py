"""What a person looks at: the report of a run, as a page and as lines for the terminal."""
